//! The wire format of protobuf, as far as it takes to find fields (protobuf.dev, "Encoding").

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A varint, or a fixed number.
    Number(u64),
    /// Bytes, text or a message.
    Bytes(&'a [u8]),
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMessage;

/// The fields of a message, in order, with their numbers. Groups, which nobody uses any more, are
/// no message.
pub(crate) fn fields(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<(u64, Value<'_>), NoMessage>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = field(&mut bytes).ok_or(NoMessage);
        if field.is_err() {
            bytes = &[];
        }
        Some(field)
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(bytes)?;
    let number = tag >> 3;
    if number == 0 || number >= 1 << 29 {
        return None;
    }
    let value = match tag & 7 {
        0 => Value::Number(varint(bytes)?),
        1 => Value::Number(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => Value::Number(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?).into()),
        _ => return None,
    };
    Some((number, value))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for at in 0..10 {
        let byte = *take(bytes, 1)?.first()?;
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let bytes = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 0x03, b'a', b'b', b'c'],
            &[0x1d, 1, 0, 0, 0],
            &[0x21, 2, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let found: Result<Vec<_>, _> = fields(&bytes).collect();
        let wanted = [
            (1, Value::Number(150)),
            (2, Value::Bytes(b"abc")),
            (3, Value::Number(1)),
            (4, Value::Number(2)),
        ];
        assert_eq!(found.unwrap(), wanted);
    }

    #[test]
    fn what_is_no_message_ends() {
        for bad in [
            &[0x08][..],
            &[0x00, 0x00],
            &[0x0b],
            &[0x0f],
            &[0x12, 0x02, 0x00],
            &[0xff; 11],
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ] {
            assert!(fields(bad).any(|field| field.is_err()), "{bad:?}");
        }
    }
}
