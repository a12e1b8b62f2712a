//! dm-verity: superblock and hash tree, as `veritysetup format` writes them, and their check.
//!
//! Format version 1 (`cryptsetup` wiki "DMVerity", kernel `admin-guide/device-mapper/verity`):
//! SHA-256, data and hash blocks of 4096 bytes, a digest is SHA-256(salt ‖ block). One block holds
//! the superblock, then the levels follow, the top one first; a hash block holds 128 digests and
//! is padded with zeros. The root hash is the digest of the top block.

mod build;
mod check;
mod root_hash;

use std::io;

use uuid::Uuid;

pub use build::build;
pub use check::{fuzz, verify};
pub use root_hash::{BadRootHash, RootHash};

/// Bytes of a data block and of a hash block.
pub const BLOCK_SIZE: u64 = BLOCK as u64;

const BLOCK: usize = 4096;
const DIGEST: usize = 32;
/// Digests in a hash block.
const FANOUT: u64 = (BLOCK / DIGEST) as u64;

/// What the superblock says besides the size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Hashed before each block, at most 256 bytes. With 64 bytes the data stay aligned in the
    /// hash function, which saves a copy.
    pub salt: Vec<u8>,
    /// UUID of the hash device.
    pub uuid: Uuid,
}

/// Superblock and hash tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashTree {
    /// The content of the hash partition, whole blocks.
    pub bytes: Vec<u8>,
    /// What the kernel is given.
    pub root_hash: RootHash,
}

/// What a checked hash partition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Size of the data in blocks.
    pub data_blocks: u64,
    /// Size of the hash partition's content in bytes.
    pub tree_bytes: u64,
    /// Salt and UUID.
    pub parameters: Parameters,
}

/// Why a tree cannot be made, or data is not what a root hash says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The salt does not fit into the superblock.
    #[error("a verity salt has at most 256 bytes, not {0}")]
    Salt(usize),
    /// Nothing to hash.
    #[error("verity needs at least one block of data")]
    NoData,
    /// The superblock is not one that this module (or our stage1) knows.
    #[error("verity superblock, byte {offset}: {what}")]
    Superblock {
        /// Where in the hash partition.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The hash partition or the data are shorter than the superblock says.
    #[error("{what} is {have} bytes long, the verity superblock asks for {needed}")]
    Short {
        /// Which of both.
        what: &'static str,
        /// Its size.
        have: u64,
        /// What it should be at least.
        needed: u64,
    },
    /// A block of the tree is not what the level above (or the root hash) says.
    #[error(
        "hash block {block} (byte {offset} of the hash partition, level {level}) does not match \
         the level above"
    )]
    HashBlock {
        /// Level, 0 is the one that covers data.
        level: usize,
        /// Number of the block in the hash partition.
        block: u64,
        /// Its first byte.
        offset: u64,
    },
    /// A data block is not what the tree says. It is the first such block.
    #[error("data block {block} (byte {offset}) does not match its hash")]
    DataBlock {
        /// Number of the block.
        block: u64,
        /// Its first byte.
        offset: u64,
    },
    /// Reading failed.
    #[error("reading {what} at byte {offset} failed")]
    Read {
        /// Data or hash partition.
        what: &'static str,
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// Levels of the tree over `data_blocks` blocks: hash blocks of each, level 0 first.
fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut width = data_blocks;
    while width > 1 {
        width = width.div_ceil(FANOUT);
        levels.push(width);
    }
    levels
}

/// Bytes that superblock and tree take for `data_blocks` blocks of data.
pub fn tree_bytes(data_blocks: u64) -> u64 {
    (1 + levels(data_blocks).iter().sum::<u64>()) * BLOCK_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_trees() {
        assert_eq!(levels(1), [0u64; 0]);
        assert_eq!(levels(2), [1]);
        assert_eq!(levels(128), [1]);
        assert_eq!(levels(129), [2, 1]);
        // 300 MB, as measured with veritysetup 2.6.1.
        assert_eq!(tree_bytes(76_800), 2_486_272);
        // The partition of 8 MiB suffices for the root of 512 MiB.
        assert!(tree_bytes(512 << 20 >> 12) < 8 << 20);
    }
}
