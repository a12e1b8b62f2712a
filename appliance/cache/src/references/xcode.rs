//! Ids of Xcode CAS objects in values of the action cache.
//!
//! The values are base64 of protobuf messages of a schema that is not public. What can be seen is
//! a field 2 of 64 bytes (tag byte 0x12, length 0x40) whose bytes are hexadecimal digits.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const COMMON: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);
const DIGITS: usize = 64;

/// Adds the ids in a value to `ids`; a value that is no base64 has none.
pub(crate) fn ids(value: &str, ids: &mut Vec<String>) {
    let decoded = COMMON.decode(value).or_else(|_| URL.decode(value));
    let Ok(bytes) = decoded else {
        return;
    };
    let mut rest = bytes.as_slice();
    while let Some(at) = rest.windows(2).position(|two| two == [0x12, 0x40]) {
        rest = &rest[at + 2..];
        let Some(id) = rest.get(..DIGITS) else {
            return;
        };
        if id.iter().all(u8::is_ascii_hexdigit) {
            // Hexadecimal digits are UTF-8.
            ids.push(String::from_utf8_lossy(id).into_owned());
            rest = &rest[DIGITS..];
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn found(value: &str) -> Vec<String> {
        let mut found = Vec::new();
        ids(value, &mut found);
        found
    }

    #[test]
    fn ids_are_found_wherever_they_are() {
        let (a, b) = ("0123456789ABCDEF".repeat(4), "f".repeat(64));
        let mut bytes = vec![0xff, 0xfe, 0x12, 0x12, 0x40];
        bytes.extend(a.bytes());
        // One that is none hides none.
        bytes.extend([0x12, 0x40, 0x12, 0x40]);
        bytes.extend(b.bytes());
        bytes.extend([0x12, 0x40, b'a']);
        let wanted = vec![a, b];
        assert_eq!(found(&STANDARD.encode(&bytes)), wanted);
        assert_eq!(found(&URL_SAFE_NO_PAD.encode(&bytes)), wanted);
    }

    #[test]
    fn unknown_shapes_have_none() {
        let short = STANDARD.encode([&[0x12, 0x40][..], &[b'a'; 63]].concat());
        let other = STANDARD.encode([&[0x12, 0x40][..], &[b'g'; 64]].concat());
        for value in ["", "=", "not base64!", &short, &other] {
            assert!(found(value).is_empty(), "{value}");
        }
    }
}
