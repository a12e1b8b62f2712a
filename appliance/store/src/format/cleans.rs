//! The generations of cleaned projects (`FORMAT.md` 1.5).

use super::Fields;

/// Length of an entry in bytes.
pub(crate) const ENTRY: usize = 64;
const MAGIC: &[u8; 4] = b"LCLN";

/// A clean: from it on the project has this generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clean {
    /// Hash of the project, [`crate::key::project_hash`].
    pub(crate) project: [u8; 32],
    pub(crate) generation: u64,
    /// When, ms since 1970.
    pub(crate) time: u64,
}

impl Clean {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[8..40].copy_from_slice(&self.project);
        bytes[40..48].copy_from_slice(&self.generation.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.time.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.bytes(4)? != MAGIC || fields.u32()? != crc32c::crc32c(fields.0) {
            return None;
        }
        let clean = Self {
            project: fields.array()?,
            generation: fields.u64()?,
            time: fields.u64()?,
        };
        fields.zeros(8)?;
        Some(clean)
    }
}

/// The sound entries of a copy, in their order.
pub(crate) fn parse(bytes: &[u8]) -> impl Iterator<Item = Clean> {
    bytes.chunks_exact(ENTRY).filter_map(Clean::parse)
}
