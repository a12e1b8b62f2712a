//! The superblock and the group descriptors.

use super::checksum;
use super::inode::{put16, put32};
use super::layout::{
    BLOCK, BLOCKS_PER_GROUP, DESCRIPTOR, EXTRA_ISIZE, FIRST_INODE, Geometry, INODE, MAGIC, compat,
    incompat, ro_compat,
};

/// Where the superblock is in block 0.
pub(super) const OFFSET: usize = 1024;
/// How long it is.
pub(super) const LEN: usize = 1024;

/// What the superblock says besides the geometry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Superblock<'a> {
    pub(super) uuid: &'a [u8; 16],
    pub(super) hash_seed: &'a [u8; 16],
    pub(super) label: &'a str,
    pub(super) clock: i64,
    pub(super) sealed: bool,
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u32,
    pub(super) lost_found: u32,
}

impl Superblock<'_> {
    /// Its 1024 bytes.
    pub(super) fn encode(&self, geometry: &Geometry) -> [u8; LEN] {
        let mut out = [0; LEN];
        put32(&mut out, 0x00, geometry.inodes());
        put32(&mut out, 0x04, geometry.total as u32);
        put32(&mut out, 0x150, (geometry.total >> 32) as u32);
        put32(&mut out, 0x0C, self.free_blocks as u32);
        put32(&mut out, 0x158, (self.free_blocks >> 32) as u32);
        put32(&mut out, 0x10, self.free_inodes);
        // 1024 << 2: blocks (and clusters) of 4096 bytes.
        put32(&mut out, 0x18, 2);
        put32(&mut out, 0x1C, 2);
        put32(&mut out, 0x20, BLOCKS_PER_GROUP as u32);
        put32(&mut out, 0x24, BLOCKS_PER_GROUP as u32);
        put32(&mut out, 0x28, geometry.inodes_per_group);
        // No check is due after any number of mounts.
        put16(&mut out, 0x36, u16::MAX);
        put16(&mut out, 0x38, MAGIC);
        // Clean; on errors, go on read-only.
        put16(&mut out, 0x3A, 1);
        put16(&mut out, 0x3C, 2);
        for (low, high) in [(0x30, 0x274), (0x108, 0x276), (0x40, 0x277)] {
            put32(&mut out, low, self.clock as u32);
            out[high] = (self.clock >> 32) as u8;
        }
        put32(&mut out, 0x4C, 1);
        put32(&mut out, 0x54, FIRST_INODE);
        put16(&mut out, 0x58, INODE as u16);
        let (writable, sealed) = match self.sealed {
            true => (0, ro_compat::READONLY),
            false => (compat::DIR_INDEX, 0),
        };
        put32(
            &mut out,
            0x5C,
            compat::EXT_ATTR | compat::SPARSE_SUPER2 | writable,
        );
        put32(
            &mut out,
            0x60,
            incompat::FILETYPE | incompat::EXTENTS | incompat::BIT64 | incompat::FLEX_BG,
        );
        put32(
            &mut out,
            0x64,
            ro_compat::LARGE_FILE
                | ro_compat::HUGE_FILE
                | ro_compat::DIR_NLINK
                | ro_compat::EXTRA_ISIZE
                | ro_compat::METADATA_CSUM
                | sealed,
        );
        out[0x68..0x78].copy_from_slice(self.uuid);
        out[0x78..0x78 + self.label.len()].copy_from_slice(self.label.as_bytes());
        out[0xEC..0xFC].copy_from_slice(self.hash_seed);
        // Half MD4 of signed bytes, as mke2fs chooses on x86.
        out[0xFC] = 1;
        put32(&mut out, 0x160, 1);
        put16(&mut out, 0xFE, DESCRIPTOR as u16);
        // Mounted with user_xattr and acl.
        put32(&mut out, 0x100, 0xC);
        put16(&mut out, 0x15C, EXTRA_ISIZE);
        put16(&mut out, 0x15E, EXTRA_ISIZE);
        // One flexible group that holds all.
        out[0x174] = geometry.groups.next_power_of_two().trailing_zeros().max(4) as u8;
        // CRC-32C.
        out[0x175] = 1;
        put32(&mut out, 0x268, self.lost_found);
        let sum = checksum::crc(!0, &out[..0x3FC]);
        put32(&mut out, 0x3FC, sum);
        out
    }
}

/// What a group descriptor says besides the geometry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a> {
    pub(super) number: u32,
    pub(super) free_blocks: u32,
    pub(super) free_inodes: u32,
    pub(super) folders: u32,
    pub(super) block_bitmap: &'a [u8; BLOCK],
    pub(super) inode_bitmap: &'a [u8; BLOCK],
}

impl Group<'_> {
    /// The 64 bytes of its descriptor. Unused inodes must be the last of the group.
    pub(super) fn encode(&self, geometry: &Geometry, fs_seed: u32) -> [u8; DESCRIPTOR] {
        let mut out = [0; DESCRIPTOR];
        let number = u64::from(self.number);
        let table_blocks = u64::from(geometry.inodes_per_group) * INODE as u64 / BLOCK as u64;
        let places = [
            geometry.block_bitmaps + number,
            geometry.inode_bitmaps + number,
            geometry.inode_table + number * table_blocks,
        ];
        for (at, place) in places.into_iter().enumerate() {
            put32(&mut out, 4 * at, place as u32);
            put32(&mut out, 0x20 + 4 * at, (place >> 32) as u32);
        }
        let counts = [self.free_blocks, self.free_inodes, self.folders];
        for (at, count) in counts.into_iter().enumerate() {
            put16(&mut out, 0x0C + 2 * at, count as u16);
            put16(&mut out, 0x2C + 2 * at, (count >> 16) as u16);
        }
        // The unused rest of the inode table: not to be scanned.
        put16(&mut out, 0x1C, self.free_inodes as u16);
        put16(&mut out, 0x32, (self.free_inodes >> 16) as u16);
        // The inode table is zeroed.
        put16(&mut out, 0x12, 4);
        let inode_bytes = geometry.inodes_per_group as usize / 8;
        let sums = [
            checksum::crc(fs_seed, self.block_bitmap),
            checksum::crc(fs_seed, &self.inode_bitmap[..inode_bytes]),
        ];
        for (at, sum) in sums.into_iter().enumerate() {
            put16(&mut out, 0x18 + 2 * at, sum as u16);
            put16(&mut out, 0x38 + 2 * at, (sum >> 16) as u16);
        }
        let sum = checksum::crc(checksum::crc(fs_seed, &self.number.to_le_bytes()), &out);
        put16(&mut out, 0x1E, sum as u16);
        out
    }
}
