//! Remote write 2.0 (Prometheus Remote-Write 2.0 specification, `io.prometheus.write.v2.Request`): the
//! samples of a frame with every string once.
//!
//! Receivers that do not know it answer 204 and store nothing, so it is only used where a receiver
//! proves by `X-Prometheus-Remote-Write-Samples-Written` that it has understood: [`Knowledge`].

use std::collections::HashMap;
use std::time::Duration;

use crate::protobuf;

/// Headers that differ from those of 1.0.
pub(crate) const HEADERS: [(&str, &str); 2] = [
    (
        "content-type",
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    ),
    ("x-prometheus-remote-write-version", "2.0.0"),
];
/// Time between two tries with a receiver that did not understand.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What is known of the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// It was never tried.
    #[default]
    None,
    /// It has proved that it understands.
    Proved,
    /// It did not, at this time by the monotonic clock.
    Refused(Duration),
}

impl Knowledge {
    /// Whether to send the next frame so.
    pub(super) fn worth_a_try(self, now: Duration) -> bool {
        match self {
            Self::None | Self::Proved => true,
            Self::Refused(at) => now.saturating_sub(at) >= AGAIN,
        }
    }
}

/// The same samples as a request of 2.0, compressed, and how many they are. `None`: the frame is
/// damaged or empty.
pub(super) fn request(series: &[Vec<u8>]) -> Option<(Vec<u8>, u64)> {
    // The first string is empty: what is not said refers to it.
    let mut symbols: Vec<&[u8]> = vec![&b""[..]];
    let mut known: HashMap<&[u8], u64> = HashMap::new();
    let mut all = Vec::new();
    let (mut references, mut one) = (Vec::new(), Vec::new());
    for series in series {
        let (_, series) = field(series)?.0;
        let mut sample = None;
        references.clear();
        let mut rest = series;
        while !rest.is_empty() {
            let ((number, value), after) = field(rest)?;
            rest = after;
            match number {
                1 => {
                    let ((_, name), behind) = field(value)?;
                    let ((_, value), _) = field(behind)?;
                    for text in [name, value] {
                        let next = symbols.len() as u64;
                        let symbol = *known.entry(text).or_insert(next);
                        if symbol == next {
                            symbols.push(text);
                        }
                        protobuf::varint(&mut references, symbol);
                    }
                }
                // Value and time have the numbers that they have in 1.0.
                2 => sample = Some(value),
                _ => return None,
            }
        }
        one.clear();
        protobuf::bytes(&mut one, 1, &references);
        protobuf::bytes(&mut one, 2, sample?);
        protobuf::bytes(&mut all, 5, &one);
    }
    let mut raw = Vec::new();
    for symbol in &symbols {
        protobuf::bytes(&mut raw, 4, symbol);
    }
    raw.extend_from_slice(&all);
    let body = snap::raw::Encoder::new().compress_vec(&raw).ok()?;
    (!series.is_empty()).then_some((body, series.len() as u64))
}

/// Number and value of a field, and what follows it.
type Field<'a> = ((u8, &'a [u8]), &'a [u8]);

/// The first field, which is length-delimited.
fn field(bytes: &[u8]) -> Option<Field<'_>> {
    let tag = *bytes.first()?;
    if tag & 7 != 2 || tag >= 0x80 {
        return None;
    }
    let mut length = 0usize;
    for (at, byte) in bytes.iter().skip(1).take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let start = at + 2;
            let end = start.checked_add(length)?;
            return Some(((tag >> 3, bytes.get(start..end)?), &bytes[end..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, Kind, Sink, Snapshot};
    use super::*;

    #[test]
    fn strings_are_there_once() {
        let mut snapshot = Snapshot::new(&[("job".into(), "node".into())]);
        snapshot.family("x", Kind::Gauge);
        snapshot.sample(&[("a", "1")], 1.0);
        snapshot.sample(&[("a", "2")], 2.0);
        let (body, count) = request(&Frame::new(5, &snapshot).series()).unwrap();
        assert_eq!(count, 2);
        let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        // "", __name__, x, a, 1, job, node, 2.
        let symbols =
            b"\x22\0\x22\x08__name__\x22\x01x\x22\x01a\x22\x011\x22\x03job\x22\x04node\x22\x012";
        assert_eq!(&raw[..symbols.len()], symbols);
        let first =
            b"\x2a\x15\x0a\x06\x01\x02\x03\x04\x05\x06\x12\x0b\x09\0\0\0\0\0\0\xf0\x3f\x10\x05";
        assert_eq!(&raw[symbols.len()..][..first.len()], first);
    }

    #[test]
    fn what_is_damaged_or_empty_is_no_request() {
        assert_eq!(request(&[]), None);
        for bad in [
            &b""[..],
            b"\x0a",
            b"\x0a\x05\x0a\x03",
            b"\x0a\x02\x18\x01",
            b"\x0a\x00",
        ] {
            assert_eq!(request(&[bad.to_vec()]), None, "{bad:?}");
        }
    }

    #[test]
    fn one_that_refused_is_asked_again_after_a_day() {
        let at = Duration::from_secs(100);
        assert!(Knowledge::default().worth_a_try(at) && Knowledge::Proved.worth_a_try(at));
        assert!(!Knowledge::Refused(at).worth_a_try(at + AGAIN / 2));
        assert!(Knowledge::Refused(at).worth_a_try(at + AGAIN));
    }
}
