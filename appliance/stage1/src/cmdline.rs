//! The kernel's command line.

use std::fmt;

use uuid::Uuid;

use crate::console::Fatal;

/// A root hash: SHA-256, the identity of the sealed root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootHash([u8; 32]);

impl RootHash {
    /// Parses 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// PARTUUID of the root partition: the first 128 bits (Discoverable Partitions Specification).
    pub(crate) fn root_guid(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        Uuid::from_bytes(bytes)
    }

    /// PARTUUID of the verity partition: the last 128 bits.
    pub(crate) fn verity_guid(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[16..]);
        Uuid::from_bytes(bytes)
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What stage1 takes from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cmdline {
    pub(crate) root_hash: RootHash,
}

/// Reads `/proc/cmdline`.
pub(crate) fn read() -> Result<Cmdline, Fatal> {
    let text = std::fs::read_to_string("/proc/cmdline")
        .map_err(|error| Fatal::new(format!("cannot read the command line: {error}")))?;
    parse(&text).map_err(Fatal::new)
}

/// The last `roothash=` counts, as with every argument of the kernel.
fn parse(text: &str) -> Result<Cmdline, String> {
    let mut value = text
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("roothash="));
    let value = value
        .next_back()
        .ok_or("the command line has no roothash=, so no root is the right one")?;
    let root_hash = RootHash::parse(value)
        .ok_or_else(|| format!("roothash={value} on the command line is no SHA-256"))?;
    Ok(Cmdline { root_hash })
}

#[cfg(test)]
pub(crate) const EXAMPLE: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_of_partitions_follows_from_the_hash() {
        let found = parse(&format!("quiet roothash=x roothash={EXAMPLE} panic=10\n")).unwrap();
        assert_eq!(found.root_hash.to_string(), EXAMPLE.to_lowercase());
        let text = |guid: Uuid| guid.to_string();
        assert_eq!(
            text(found.root_hash.root_guid()),
            "00112233-4455-6677-8899-aabbccddeeff"
        );
        assert_eq!(
            text(found.root_hash.verity_guid()),
            "01234567-89ab-cdef-0123-456789abcdef"
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        assert!(parse("quiet").unwrap_err().contains("no roothash="));
        assert!(parse("roothash=12").unwrap_err().contains("roothash=12"));
        assert!(parse(&format!("roothash={}é", &EXAMPLE[..62])).is_err());
        assert!(parse(&format!("roothash={}zz", &EXAMPLE[..62])).is_err());
        assert!(parse(&format!("roothash=+{}", &EXAMPLE[1..])).is_err());
    }
}
