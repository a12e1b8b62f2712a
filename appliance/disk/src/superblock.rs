//! The superblock of ext4 (linux/fs/ext4/ext4.h), as much as our decisions need.

use uuid::Uuid;

use crate::{Error, LABEL_CAS, LABEL_STATE, PRISTINE, ReadAt};

/// Byte offset of the superblock.
pub const OFFSET: u64 = 1024;
/// Bytes of the superblock that hold everything read here: its first half, one sector at least.
/// The first mkfs writes it last, so what it says was so when everything else was in place.
pub const HALF: usize = 512;

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ext4 {
    /// Label, at most 16 bytes.
    pub label: String,
    /// Identity of the file system.
    pub uuid: Uuid,
    /// Number of blocks.
    pub blocks: u64,
    /// Size of a block in bytes.
    pub block_size: u32,
}

impl Ext4 {
    /// Reads the superblock; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The device failed: nothing is known about what it holds.
    pub fn read(device: &mut dyn ReadAt) -> Result<Option<Self>, Error> {
        if device.size() < OFFSET + HALF as u64 {
            return Ok(None);
        }
        let half = device.read_vec(OFFSET, HALF)?;
        Ok(Self::parse(&half))
    }

    /// Parses the first half of a superblock; `None` if it is none.
    #[must_use]
    pub fn parse(half: &[u8]) -> Option<Self> {
        let half: &[u8; HALF] = half.get(..HALF)?.try_into().ok()?;
        let word =
            |at: usize| u32::from_le_bytes([half[at], half[at + 1], half[at + 2], half[at + 3]]);
        if half[0x38..0x3a] != [0x53, 0xef] {
            return None;
        }
        let label = half[0x78..0x88]
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&half[0x68..0x78]);
        let wide = word(0x60) & 0x80 != 0;
        let high = if wide {
            u64::from(word(0x150)) << 32
        } else {
            0
        };
        Some(Self {
            label: String::from_utf8_lossy(label).into_owned(),
            uuid: Uuid::from_bytes(uuid),
            blocks: high | u64::from(word(4)),
            // 1 KiB to 64 KiB; more is no ext4.
            block_size: 1024u32
                .checked_shl(word(0x18))
                .filter(|&size| size <= 65536 && size > 0)?,
        })
    }

    /// Whether it came with the image and was never used.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.label == PRISTINE
    }

    /// Whether Larder made it for `/var` or `/cas`.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.label == LABEL_STATE || self.label == LABEL_CAS
    }
}

/// The first half of the superblock of a file system that is nothing but pristine: what a partition
/// of a blank disk holds until its file system is made.
#[must_use]
pub fn pristine_half(uuid: Uuid) -> [u8; HALF] {
    let mut half = [0; HALF];
    half[0x18] = 2;
    half[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
    half[0x68..0x78].copy_from_slice(uuid.as_bytes());
    half[0x78..0x78 + PRISTINE.len()].copy_from_slice(PRISTINE.as_bytes());
    half
}

/// Fuzz target: no bytes may panic the parser.
pub fn fuzz(bytes: &[u8]) {
    if let Some(found) = Ext4::parse(bytes) {
        assert!(found.block_size >= 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pristine_half_reads_as_pristine() {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let found = Ext4::parse(&pristine_half(uuid)).unwrap();
        assert!(found.is_pristine() && !found.is_ours());
        assert_eq!(
            (found.uuid, found.block_size, found.blocks),
            (uuid, 4096, 0)
        );
    }

    #[test]
    fn rejects_what_is_no_superblock() {
        assert_eq!(Ext4::parse(&[0; HALF]), None);
        assert_eq!(Ext4::parse(&pristine_half(Uuid::nil())[..HALF - 1]), None);
        let mut huge_blocks = pristine_half(Uuid::nil());
        huge_blocks[0x18] = 31;
        assert_eq!(Ext4::parse(&huge_blocks), None);
        let mut silly = pristine_half(Uuid::nil());
        silly[0x1b] = 0xff;
        assert_eq!(Ext4::parse(&silly), None);
    }
}
