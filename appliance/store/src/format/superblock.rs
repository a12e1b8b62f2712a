//! The superblock of a volume (`FORMAT.md` 1.6).

use super::{Fields, VERSION, seal, unseal};

/// Length of one of its two copies in bytes.
pub(crate) const LENGTH: usize = 4096;
/// Most members of a store, and most lists that a volume remembers.
pub(crate) const LISTS: usize = 64;
const MAGIC: &[u8; 8] = b"LARDVOL1";

/// Which volumes shared the keys from a place in the log on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    /// First segment for which it counts.
    pub(crate) from: u32,
    /// Their names.
    pub(crate) names: Vec<String>,
}

/// The superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: [u8; 16],
    /// Number of the last change of the list of volumes that it took part in.
    pub(crate) epoch: u64,
    /// When the volume was made, ms since 1970.
    pub(crate) time: u64,
    /// Oldest first, never empty.
    pub(crate) members: Vec<Members>,
}

/// Why there is no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Neither copy checks.
    Damaged,
    /// It is of this version, which is not ours.
    Version(u32),
}

impl Superblock {
    /// Both copies; `None` if the lists do not fit.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut lists = Vec::new();
        for list in &self.members {
            lists.extend_from_slice(&list.from.to_le_bytes());
            lists.extend_from_slice(&u16::try_from(list.names.len()).ok()?.to_le_bytes());
            for name in &list.names {
                lists.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
                lists.extend_from_slice(name.as_bytes());
            }
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.uuid);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.time.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.members.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(lists.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&lists);
        if bytes.len() > LENGTH - 4 || self.members.len() > LISTS {
            return None;
        }
        seal(&mut bytes, LENGTH - 4);
        bytes.extend_from_within(..);
        Some(bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Missing> {
        let mut missing = Missing::Damaged;
        for copy in bytes.chunks(LENGTH).take(2) {
            let Some(mut fields) = unseal(copy, LENGTH - 4) else {
                continue;
            };
            if fields.bytes(8) != Some(MAGIC) {
                continue;
            }
            match fields.u32() {
                Some(VERSION) => {
                    if let Some(parsed) = Self::parse_fields(fields) {
                        return Ok(parsed);
                    }
                }
                Some(version) => missing = Missing::Version(version),
                None => {}
            }
        }
        Err(missing)
    }

    fn parse_fields(mut fields: Fields<'_>) -> Option<Self> {
        fields.zeros(4)?;
        let (uuid, epoch, time) = (fields.array()?, fields.u64()?, fields.u64()?);
        let count = fields.u32()? as usize;
        let length = fields.u32()? as usize;
        let mut lists = Fields(fields.bytes(length)?);
        if !(1..=LISTS).contains(&count) {
            return None;
        }
        let members = (0..count)
            .map(|_| {
                let (from, names) = (lists.u32()?, lists.u16()?);
                let names = (0..names)
                    .map(|_| {
                        let length = usize::from(lists.u16()?);
                        let name = std::str::from_utf8(lists.bytes(length)?).ok()?;
                        Some(name.to_owned())
                    })
                    .collect::<Option<Vec<_>>>()?;
                (!names.is_empty()).then_some(Members { from, names })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            uuid,
            epoch,
            time,
            members,
        })
    }
}
