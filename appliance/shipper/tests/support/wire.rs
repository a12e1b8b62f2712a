//! Requests of Loki's push API, made by hand (`pkg/push/push.proto`).

/// A compressed request.
pub(crate) type Push = Vec<u8>;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// An `Entry` at a time in ns since 1970.
pub(crate) fn line(time: i64, text: &[u8]) -> Vec<u8> {
    line_with(time, text, &[])
}

/// An `Entry` with structured metadata.
pub(crate) fn line_with(time: i64, text: &[u8], metadata: &[(String, String)]) -> Vec<u8> {
    let mut timestamp = vec![0x08];
    varint((time / 1_000_000_000) as u64, &mut timestamp);
    timestamp.push(0x10);
    varint((time % 1_000_000_000) as u64, &mut timestamp);
    let mut entry = [field(1, &timestamp), field(2, text)].concat();
    for (name, value) in metadata {
        let pair = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
        entry.extend(field(3, &pair));
    }
    entry
}

/// A request of streams by labels.
pub(crate) fn push(streams: &[(&str, Vec<Vec<u8>>)]) -> Push {
    let mut raw = Vec::new();
    for (labels, entries) in streams {
        let mut stream = field(1, labels.as_bytes());
        for entry in entries {
            stream.extend(field(2, entry));
        }
        raw.extend(field(1, &stream));
    }
    snap::raw::Encoder::new().compress_vec(&raw).unwrap()
}
