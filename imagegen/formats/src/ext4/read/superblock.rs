//! Superblock and group descriptors.

use uuid::Uuid;

use super::super::checksum;
use super::super::layout::{MAGIC, incompat, ro_compat};
use super::super::superblock::{LEN, OFFSET};
use super::{ReadError, u16_at, u32_at};
use crate::region::ReadAt;

/// What a superblock says to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Volume label.
    pub label: String,
    /// UUID.
    pub uuid: Uuid,
    /// Seed of the directory hashes.
    pub hash_seed: Uuid,
    /// When it was made, seconds since 1970.
    pub made: i64,
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Inodes.
    pub inodes: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// Whether it forbids to be written (the feature `read-only`).
    pub sealed: bool,
    /// Whether it has a journal.
    pub journal: bool,
}

/// What the reader needs of it.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) block: u64,
    pub(super) inode_size: usize,
    pub(super) inodes_per_group: u32,
    /// First block of each group's inode table.
    pub(super) tables: Vec<u64>,
    /// Seed of all checksums, if there are any (and if they are to be looked at).
    pub(super) seed: Option<u32>,
}

/// Incompatible features that the reader knows.
const KNOWN: u32 = incompat::FILETYPE
    | incompat::EXTENTS
    | incompat::BIT64
    | incompat::FLEX_BG
    | incompat::CSUM_SEED;

/// More groups than this (8 TiB) no file system that we read has.
const MOST_GROUPS: u64 = 65_536;

pub(super) fn read<D: ReadAt + ?Sized>(device: &D, sums: bool) -> Result<(Info, Shape), ReadError> {
    let at = OFFSET as u64;
    let failed = |offset| move |source| ReadError::Read { offset, source };
    let mut sb = [0; LEN];
    device.read_exact_at(&mut sb, at).map_err(failed(at))?;
    let bad = |offset: u64, what: String| {
        Err(ReadError::Superblock {
            offset: at + offset,
            what,
        })
    };
    if u16_at(&sb, 0x38) != MAGIC {
        return bad(0x38, "no ext4 magic number".into());
    }
    let features = u32_at(&sb, 0x60);
    if features & incompat::RECOVER != 0 {
        return Err(ReadError::Feature {
            offset: at + 0x60,
            bits: incompat::RECOVER,
            what: "it was not unmounted, the journal must be replayed first",
        });
    }
    if features & !KNOWN != 0 {
        return Err(ReadError::Feature {
            offset: at + 0x60,
            bits: features & !KNOWN,
            what: "s_feature_incompat",
        });
    }
    let read_only = u32_at(&sb, 0x64);
    let has_sums = read_only & ro_compat::METADATA_CSUM != 0;
    if sums && has_sums && checksum::crc(!0, &sb[..0x3FC]) != u32_at(&sb, 0x3FC) {
        return Err(ReadError::Checksum {
            offset: at,
            what: "the superblock".into(),
        });
    }
    let log_block = u32_at(&sb, 0x18);
    if log_block > 6 {
        return bad(
            0x18,
            format!("blocks of 2^{} bytes", u64::from(log_block) + 10),
        );
    }
    let block = 1024u64 << log_block;
    let wide = features & incompat::BIT64 != 0;
    let high = |offset: usize| match wide {
        true => u64::from(u32_at(&sb, offset)) << 32,
        false => 0,
    };
    let blocks = u64::from(u32_at(&sb, 0x04)) | high(0x150);
    let per_group = u64::from(u32_at(&sb, 0x20));
    let first_block = u64::from(u32_at(&sb, 0x14));
    let inodes_per_group = u32_at(&sb, 0x28);
    let inode_size = usize::from(u16_at(&sb, 0x58));
    if !(128..=block as usize).contains(&inode_size) || !inode_size.is_power_of_two() {
        return bad(0x58, format!("inodes of {inode_size} bytes"));
    }
    if per_group == 0 || inodes_per_group == 0 || first_block > 1 || blocks <= first_block {
        return bad(0x14, "groups without blocks or inodes".into());
    }
    if blocks.checked_mul(block).is_none() {
        return bad(0x04, format!("{blocks} blocks"));
    }
    let groups = (blocks - first_block).div_ceil(per_group);
    if groups > MOST_GROUPS {
        return bad(0x20, format!("{groups} groups"));
    }
    let descriptor = match wide {
        true => usize::from(u16_at(&sb, 0xFE)),
        false => 32,
    };
    if ![32, 64].contains(&descriptor) {
        return bad(0xFE, format!("group descriptors of {descriptor} bytes"));
    }
    let seed = match features & incompat::CSUM_SEED {
        0 => checksum::crc(!0, &sb[0x68..0x78]),
        _ => u32_at(&sb, 0x270),
    };
    let seed = (sums && has_sums).then_some(seed);

    let start = (first_block + 1) * block;
    let mut table = vec![0; groups as usize * descriptor];
    device
        .read_exact_at(&mut table, start)
        .map_err(failed(start))?;
    let mut tables = Vec::with_capacity(groups as usize);
    for (group, bytes) in (0u32..).zip(table.chunks_exact_mut(descriptor)) {
        let sum = u16_at(bytes, 0x1E);
        bytes[0x1E..0x20].fill(0);
        if let Some(seed) = seed {
            let ours = checksum::crc(checksum::crc(seed, &group.to_le_bytes()), bytes);
            if ours as u16 != sum {
                return Err(ReadError::Checksum {
                    offset: start + u64::from(group) * descriptor as u64,
                    what: format!("the descriptor of group {group}"),
                });
            }
        }
        let upper = match descriptor {
            64 => u64::from(u32_at(bytes, 0x28)) << 32,
            _ => 0,
        };
        tables.push(u64::from(u32_at(bytes, 0x08)) | upper);
    }
    let uuid = |offset: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&sb[offset..offset + 16]);
        Uuid::from_bytes(bytes)
    };
    let label = &sb[0x78..0x88];
    let label_len = label.iter().position(|&b| b == 0).unwrap_or(label.len());
    let info = Info {
        label: String::from_utf8_lossy(&label[..label_len]).into_owned(),
        uuid: uuid(0x68),
        hash_seed: uuid(0xEC),
        made: i64::from(u32_at(&sb, 0x108)) | i64::from(sb[0x276]) << 32,
        block_size: block,
        blocks,
        free_blocks: u64::from(u32_at(&sb, 0x0C)) | high(0x158),
        inodes: u32_at(&sb, 0x00),
        free_inodes: u32_at(&sb, 0x10),
        sealed: read_only & ro_compat::READONLY != 0,
        journal: u32_at(&sb, 0x5C) & 0x4 != 0,
    };
    let shape = Shape {
        block,
        inode_size,
        inodes_per_group,
        tables,
        seed,
    };
    Ok((info, shape))
}
