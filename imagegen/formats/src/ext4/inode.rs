//! Inodes and their extent trees.

use super::checksum;
use super::layout::{BLOCK, EXTENT_MAGIC, EXTRA_ISIZE, FLAG_EXTENTS, INODE};

/// Blocks that follow each other in the file and on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// First block of the file.
    pub(super) logical: u32,
    /// First block of the file system.
    pub(super) physical: u64,
    /// How many, 1 to [`MAX_EXTENT`].
    pub(super) len: u32,
}

/// Longest initialised extent, in blocks (`EXT_INIT_MAX_LEN`).
pub(super) const MAX_EXTENT: u32 = 32768;
/// Entries of the tree node inside the inode.
const IN_INODE: usize = 4;
/// Entries of a tree node in a block, which ends in a checksum.
const IN_BLOCK: usize = (BLOCK - 12) / 12;

/// How many blocks the extent tree of `extents` extents needs besides the inode.
pub(super) fn tree_blocks(extents: usize) -> u64 {
    let mut blocks = 0;
    let mut width = extents;
    while width > IN_INODE {
        width = width.div_ceil(IN_BLOCK);
        blocks += width as u64;
    }
    blocks
}

/// The extent tree: the 60 bytes of `i_block`, and the blocks to be written at `first` and after
/// it ([`tree_blocks`] of them), without a gap.
pub(super) fn extent_tree(extents: &[Extent], first: u64, seed: u32) -> ([u8; 60], Vec<u8>) {
    let mut blocks = Vec::new();
    let mut next = first;
    let mut depth = 0u16;
    // One level at a time from the leaves up: (first logical block, the entry's 12 bytes).
    let mut level: Vec<(u32, [u8; 12])> = extents.iter().map(|e| (e.logical, leaf(e))).collect();
    while level.len() > IN_INODE {
        let mut above = Vec::with_capacity(level.len().div_ceil(IN_BLOCK));
        for entries in level.chunks(IN_BLOCK) {
            let start = blocks.len();
            blocks.resize(start + BLOCK, 0);
            let block = &mut blocks[start..];
            node(block, entries, IN_BLOCK, depth);
            let sum = checksum::crc(seed, &block[..BLOCK - 4]);
            put32(block, BLOCK - 4, sum);
            above.push((entries[0].0, index(entries[0].0, next)));
            next += 1;
        }
        level = above;
        depth += 1;
    }
    let mut root = [0; 60];
    node(&mut root, &level, IN_INODE, depth);
    (root, blocks)
}

/// A tree node: header and entries.
fn node(out: &mut [u8], entries: &[(u32, [u8; 12])], max: usize, depth: u16) {
    put16(out, 0, EXTENT_MAGIC);
    put16(out, 2, entries.len() as u16);
    put16(out, 4, max as u16);
    put16(out, 6, depth);
    for (entry, slot) in entries.iter().zip(out[12..].chunks_exact_mut(12)) {
        slot.copy_from_slice(&entry.1);
    }
}

fn leaf(extent: &Extent) -> [u8; 12] {
    let mut out = [0; 12];
    put32(&mut out, 0, extent.logical);
    put16(&mut out, 4, extent.len as u16);
    put16(&mut out, 6, (extent.physical >> 32) as u16);
    put32(&mut out, 8, extent.physical as u32);
    out
}

fn index(logical: u32, block: u64) -> [u8; 12] {
    let mut out = [0; 12];
    put32(&mut out, 0, logical);
    put32(&mut out, 4, block as u32);
    put16(&mut out, 8, (block >> 32) as u16);
    out
}

/// What an inode says, before it is bytes.
#[derive(Clone, Debug)]
pub(super) struct Inode<'a> {
    /// Type and permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u16,
    /// Blocks of data, extent tree and attributes.
    pub(super) blocks: u64,
    /// All four times.
    pub(super) time: i64,
    /// Whether `block` is an extent tree.
    pub(super) extents: bool,
    /// `i_block`.
    pub(super) block: [u8; 60],
    /// Block of extended attributes, 0 for none.
    pub(super) xattr_block: u64,
    /// Extended attributes in the inode, with their magic number; may be empty.
    pub(super) xattrs: &'a [u8],
}

impl Inode<'_> {
    /// The bytes of inode `number`, with checksum.
    pub(super) fn encode(&self, out: &mut [u8], number: u32, fs_seed: u32) {
        let out = &mut out[..INODE];
        put16(out, 0x00, self.mode);
        put16(out, 0x02, self.uid as u16);
        put32(out, 0x04, self.size as u32);
        put16(out, 0x18, self.gid as u16);
        put16(out, 0x1A, self.links);
        // Counted in 512-byte sectors.
        let sectors = self.blocks * (BLOCK as u64 / 512);
        put32(out, 0x1C, sectors as u32);
        put16(out, 0x74, (sectors >> 32) as u16);
        put32(out, 0x20, if self.extents { FLAG_EXTENTS } else { 0 });
        out[0x28..0x64].copy_from_slice(&self.block);
        put32(out, 0x68, self.xattr_block as u32);
        put16(out, 0x76, (self.xattr_block >> 32) as u16);
        put32(out, 0x6C, (self.size >> 32) as u32);
        put16(out, 0x78, (self.uid >> 16) as u16);
        put16(out, 0x7A, (self.gid >> 16) as u16);
        put16(out, 0x80, EXTRA_ISIZE);
        let (seconds, extra) = time(self.time);
        for (field, extra_field) in [(0x08, 0x8C), (0x0C, 0x84), (0x10, 0x88), (0x90, 0x94)] {
            put32(out, field, seconds);
            put32(out, extra_field, extra);
        }
        let at = 128 + usize::from(EXTRA_ISIZE);
        out[at..at + self.xattrs.len()].copy_from_slice(self.xattrs);
        let sum = checksum::crc(checksum::of_inode(fs_seed, number, 0), out);
        put16(out, 0x7C, sum as u16);
        put16(out, 0x82, (sum >> 16) as u16);
    }
}

/// Latest time that an inode can hold: year 2446.
pub(super) const LAST_TIME: i64 = (1 << 34) - (1 << 31) - 1;
/// Earliest: year 1901.
pub(super) const FIRST_TIME: i64 = -(1 << 31);

/// Seconds as the old 32-bit field and the extra field with two more bits.
fn time(seconds: i64) -> (u32, u32) {
    let low = seconds as i32;
    let epochs = (seconds - i64::from(low)) >> 32;
    (low as u32, epochs as u32 & 3)
}

/// A device number as `i_block`: the old form where it fits, else the new one.
pub(super) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut out = [0; 60];
    if major < 256 && minor < 256 {
        put32(&mut out, 0, major << 8 | minor);
    } else {
        put32(
            &mut out,
            4,
            (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12),
        );
    }
    out
}

/// The inverse of [`device`].
pub(super) fn device_of(block: &[u8; 60]) -> (u32, u32) {
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    match word(0) {
        0 => {
            let new = word(4);
            ((new >> 8) & 0xFFF, (new & 0xFF) | ((new >> 12) & 0xF_FF00))
        }
        old => ((old >> 8) & 0xFF, old & 0xFF),
    }
}

pub(super) fn put16(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        for pair in [
            (0, 0),
            (1, 3),
            (255, 255),
            (259, 70_000),
            (8, 256),
            (4095, 0xF_FFFF),
        ] {
            assert_eq!(device_of(&device(pair.0, pair.1)), pair);
        }
    }

    #[test]
    fn times_before_1970_and_after_2038() {
        assert_eq!(time(-1), (0xFFFF_FFFF, 0));
        assert_eq!(time(0x7FFF_FFFF), (0x7FFF_FFFF, 0));
        assert_eq!(time(0x8000_0000), (0x8000_0000, 1));
        assert_eq!(time(LAST_TIME), (0x7FFF_FFFF, 3));
        assert_eq!(time(FIRST_TIME), (0x8000_0000, 0));
    }

    #[test]
    fn the_number_of_tree_blocks_is_what_the_tree_takes() {
        for count in [0, 1, 4, 5, 340, 341, 1360, 1361, 200_000] {
            let extents: Vec<_> = (0..count as u32)
                .map(|n| Extent {
                    logical: 2 * n,
                    physical: 10_000 + u64::from(n),
                    len: 1,
                })
                .collect();
            let (_, blocks) = extent_tree(&extents, 77, 0);
            assert_eq!(blocks.len() as u64, tree_blocks(count) * BLOCK as u64);
        }
    }
}
