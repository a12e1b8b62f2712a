//! The file of an object: a header of 64 bytes, then the bytes of the object.
//!
//! | offset | length | what (numbers little-endian) |
//! |---|---|---|
//! | 0 | 8 | `LARDER-1` |
//! | 8 | 8 | length of the object in bytes |
//! | 16 | 8 | version: nanoseconds since 1970 when it was stored |
//! | 24 | 1 | 1: the uploader declared the digest; 0: none |
//! | 25 | 7 | zero |
//! | 32 | 32 | declared SHA-256 of the object, or zero |
//!
//! Only a digest that the uploader declared is kept: one made here from bytes that the disk may
//! have changed would certify damage.

/// Length of the header in bytes.
pub(crate) const LENGTH: usize = 64;
const MAGIC: &[u8; 8] = b"LARDER-1";

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u64,
    pub(crate) version: u64,
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.version.to_le_bytes());
        if let Some(sha256) = self.sha256 {
            bytes[24] = 1;
            bytes[32..].copy_from_slice(&sha256);
        }
        bytes
    }

    /// Parses the first bytes of a file that is `file_length` bytes long. `None`: damaged.
    pub(crate) fn parse(bytes: &[u8], file_length: u64) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (length, version) = (number(8), number(16));
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&bytes[32..]);
        let sha256 = match bytes[24] {
            0 if sha256 == [0; 32] => None,
            1 => Some(sha256),
            _ => return None,
        };
        let sound = bytes[..8] == *MAGIC
            && bytes[25..32] == [0; 7]
            && length.checked_add(LENGTH as u64) == Some(file_length);
        sound.then_some(Self {
            length,
            version,
            sha256,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(length in 0..u64::MAX - 64, version: u64, sha256: Option<[u8; 32]>) {
            let header = Header { length, version, sha256 };
            let bytes = header.to_bytes();
            prop_assert_eq!(Header::parse(&bytes, length + 64), Some(header));
            prop_assert_eq!(Header::parse(&bytes, length + 63), None);
            prop_assert_eq!(Header::parse(&bytes[..63], length + 64), None);
        }

        #[test]
        fn noise_is_damage(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            crate::fuzz(&bytes);
            prop_assert_eq!(Header::parse(&bytes, bytes.len() as u64), None);
        }
    }
}
