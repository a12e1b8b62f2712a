//! The root hash as text and as the names of partitions.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The digest that stands for all data, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash(pub [u8; 32]);

impl RootHash {
    /// PARTUUID of the data partition: the first 128 bits (Discoverable Partitions
    /// Specification).
    pub fn data_partuuid(&self) -> Uuid {
        let (first, _) = self.halves();
        Uuid::from_bytes(first)
    }

    /// PARTUUID of the hash partition: the last 128 bits.
    pub fn hash_partuuid(&self) -> Uuid {
        let (_, last) = self.halves();
        Uuid::from_bytes(last)
    }

    fn halves(&self) -> ([u8; 16], [u8; 16]) {
        let (mut first, mut last) = ([0; 16], [0; 16]);
        first.copy_from_slice(&self.0[..16]);
        last.copy_from_slice(&self.0[16..]);
        (first, last)
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

/// A text that is no root hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a root hash: 64 hexadecimal digits are")]
pub struct BadRootHash(pub String);

impl FromStr for RootHash {
    type Err = BadRootHash;

    fn from_str(text: &str) -> Result<Self, BadRootHash> {
        let bad = || BadRootHash(text.to_string());
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut out = [0; 32];
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_name_the_partitions() {
        let text = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
        let hash: RootHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(
            hash.data_partuuid().to_string(),
            "00112233-4455-6677-8899-aabbccddeeff"
        );
        assert_eq!(
            hash.hash_partuuid().to_string(),
            "01234567-89ab-cdef-fedc-ba9876543210"
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "0",
            &"0".repeat(63),
            &"0".repeat(65),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<RootHash>().is_err(), "{bad}");
        }
    }
}
