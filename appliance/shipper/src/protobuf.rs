//! Writing of protobuf messages (protobuf.dev, "Encoding"): the few wire types that Loki's and
//! Prometheus's requests need, straight into a buffer.

/// Appends a base-128 varint.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`varint`] appends for `value`.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a field of type varint.
pub(crate) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

/// Appends the head of a length-delimited field whose `length` bytes the caller appends.
pub(crate) fn head(out: &mut Vec<u8>, field: u32, length: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, length as u64);
}

/// Appends a length-delimited field: a string, bytes or a message.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    head(out, field, value.len());
    out.extend_from_slice(value);
}

/// Bytes that [`bytes`] appends for a field number below 16 and a value of `length` bytes.
pub(crate) fn bytes_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// Appends a field of type double.
pub(crate) fn double(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a message of two strings, `{1: name, 2: value}`, as field `field`: what both protocols
/// call a label.
pub(crate) fn pair(out: &mut Vec<u8>, field: u32, name: &[u8], value: &[u8]) {
    head(out, field, bytes_len(name.len()) + bytes_len(value.len()));
    bytes(out, 1, name);
    bytes(out, 2, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_as_in_the_documentation() {
        for (value, encoded) in [
            (0, &[0][..]),
            (1, &[1]),
            (150, &[0x96, 1]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out, encoded);
            assert_eq!(varint_len(value), encoded.len());
        }
    }

    #[test]
    fn fields_as_in_the_documentation() {
        let mut out = Vec::new();
        number(&mut out, 1, 150);
        bytes(&mut out, 2, b"testing");
        assert_eq!(out, b"\x08\x96\x01\x12\x07testing");
        out.clear();
        pair(&mut out, 3, b"a", b"bc");
        assert_eq!(out, b"\x1a\x07\x0a\x01a\x12\x02bc");
        out.clear();
        double(&mut out, 1, 1f64.to_bits());
        assert_eq!(out, b"\x09\0\0\0\0\0\0\xf0\x3f");
    }
}
