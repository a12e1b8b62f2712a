//! The `Range` header (RFC 9110, 14.2): one range of bytes.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Everything: several ranges, another unit and what is malformed are ignored, as one may.
    Whole,
    /// This part, never empty.
    Part(Range<u64>),
    /// A part that there is not.
    Beyond,
}

/// Parses the value of a `Range` header for an object of `length` bytes.
pub(crate) fn parse(value: &str, length: u64) -> Asked {
    let asked = || {
        let (unit, ranges) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = ranges.trim().split_once('-')?;
        Some(match (first, last) {
            ("", suffix) => {
                let suffix = number(suffix)?;
                if suffix == 0 {
                    return Some(Asked::Beyond);
                }
                part(length.saturating_sub(suffix), length, length)
            }
            (first, "") => part(number(first)?, length, length),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                part(first, last.saturating_add(1).min(length), length)
            }
        })
    };
    asked().unwrap_or(Asked::Whole)
}

fn part(first: u64, end: u64, length: u64) -> Asked {
    if first < length {
        Asked::Part(first..end)
    } else {
        Asked::Beyond
    }
}

/// Digits only; a number that is too large is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("bytes=0-", Asked::Part(0..10)),
            ("bytes=9-", Asked::Part(9..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=2-4", Asked::Part(2..5)),
            ("Bytes = 2-400", Asked::Part(2..10)),
            ("bytes=0-99999999999999999999", Asked::Part(0..10)),
            ("bytes=99999999999999999999-", Asked::Beyond),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=-0", Asked::Beyond),
            ("bytes=4-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=+1-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("lines=1-", Asked::Whole),
        ];
        for (value, asked) in cases {
            assert_eq!(parse(value, 10), asked, "{value}");
        }
        assert_eq!(parse("bytes=0-", 0), Asked::Beyond);
        assert_eq!(parse("bytes=-1", 0), Asked::Beyond);
    }

    proptest! {
        #[test]
        fn parts_are_inside(value in "bytes=[0-9]{0,20}-[0-9]{0,20}", length: u64) {
            if let Asked::Part(part) = parse(&value, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }

        #[test]
        fn noise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            crate::fuzz(&bytes);
        }
    }
}
