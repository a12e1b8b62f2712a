//! Numbers of the format (Linux `fs/ext4/ext4.h`, documentation `filesystems/ext4`), and where
//! the parts of one file system lie.
//!
//! All metadata is together at the front, which `flex_bg` allows; data follows without a gap:
//!
//! ```text
//! superblock | group descriptors | block bitmaps | inode bitmaps | inode tables
//!   | directories, long symlinks, xattr blocks, extent blocks | file contents, in path order
//! ```

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// Bytes of an inode.
pub(super) const INODE: usize = 256;
/// Inodes in a block.
pub(super) const INODES_PER_BLOCK: u32 = (BLOCK / INODE) as u32;
/// Blocks of a group: as many as a bitmap block has bits.
pub(super) const BLOCKS_PER_GROUP: u64 = 8 * BLOCK as u64;
/// Bytes of a group descriptor with the feature `64bit`.
pub(super) const DESCRIPTOR: usize = 64;
/// Inode of the root folder.
pub(super) const ROOT_INODE: u32 = 2;
/// First inode that is not reserved: that of `lost+found`.
pub(super) const FIRST_INODE: u32 = 11;
/// What the inode tables' first `extra` bytes are: up to and with `i_projid`.
pub(super) const EXTRA_ISIZE: u16 = 32;
/// `s_magic`.
pub(super) const MAGIC: u16 = 0xEF53;
/// Magic number of the extended attributes, in inodes and in blocks.
pub(super) const XATTR_MAGIC: u32 = 0xEA02_0000;
/// Magic number of an extent tree node.
pub(super) const EXTENT_MAGIC: u16 = 0xF30A;
/// `i_flags`: `i_block` is an extent tree.
pub(super) const FLAG_EXTENTS: u32 = 0x8_0000;

/// `s_feature_compat`.
pub(super) mod compat {
    pub(in super::super) const EXT_ATTR: u32 = 0x8;
    pub(in super::super) const DIR_INDEX: u32 = 0x20;
    /// At most the two named groups hold copies of the superblock; here none does: dm-verity
    /// guards a sealed file system, and an empty one is made again.
    pub(in super::super) const SPARSE_SUPER2: u32 = 0x200;
}

/// `s_feature_incompat`.
pub(super) mod incompat {
    pub(in super::super) const FILETYPE: u32 = 0x2;
    pub(in super::super) const RECOVER: u32 = 0x4;
    pub(in super::super) const EXTENTS: u32 = 0x40;
    pub(in super::super) const BIT64: u32 = 0x80;
    pub(in super::super) const FLEX_BG: u32 = 0x200;
    pub(in super::super) const CSUM_SEED: u32 = 0x2000;
}

/// `s_feature_ro_compat`.
pub(super) mod ro_compat {
    pub(in super::super) const LARGE_FILE: u32 = 0x2;
    pub(in super::super) const HUGE_FILE: u32 = 0x8;
    pub(in super::super) const DIR_NLINK: u32 = 0x20;
    pub(in super::super) const EXTRA_ISIZE: u32 = 0x40;
    pub(in super::super) const METADATA_CSUM: u32 = 0x400;
    /// The kernel mounts it read-only, whatever it is asked.
    pub(in super::super) const READONLY: u32 = 0x1000;
}

/// Type bits of `i_mode`, and the byte that says the same in directory entries.
pub(super) mod kind {
    pub(in super::super) const FIFO: (u16, u8) = (0o010_000, 5);
    pub(in super::super) const CHAR: (u16, u8) = (0o020_000, 3);
    pub(in super::super) const DIR: (u16, u8) = (0o040_000, 2);
    pub(in super::super) const BLOCK: (u16, u8) = (0o060_000, 4);
    pub(in super::super) const FILE: (u16, u8) = (0o100_000, 1);
    pub(in super::super) const SYMLINK: (u16, u8) = (0o120_000, 7);
    pub(in super::super) const SOCKET: (u16, u8) = (0o140_000, 6);
    pub(in super::super) const MASK: u16 = 0o170_000;
}

/// Where things lie, in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Groups of [`BLOCKS_PER_GROUP`]; the last may be shorter.
    pub(super) groups: u32,
    /// A multiple of [`INODES_PER_BLOCK`].
    pub(super) inodes_per_group: u32,
    /// Blocks of the group descriptor table, from block 1.
    pub(super) descriptor_blocks: u64,
    /// First block bitmap; one a group follows.
    pub(super) block_bitmaps: u64,
    /// First inode bitmap.
    pub(super) inode_bitmaps: u64,
    /// First block of the first inode table; the tables follow each other without a gap.
    pub(super) inode_table: u64,
    /// First block after the inode tables.
    pub(super) body: u64,
    /// All blocks of the file system.
    pub(super) total: u64,
}

impl Geometry {
    /// For `inodes` inodes (the reserved ones included) and `body` blocks of directories, other
    /// metadata and data, in at least `minimum` blocks.
    pub(super) fn new(inodes: u32, body: u64, minimum: u64) -> Self {
        // More groups need more bitmaps, which may need one more group: go up until it fits.
        let mut groups = 1u32;
        loop {
            let geometry = Self::with_groups(groups, inodes, body, minimum);
            let needed = geometry.total.div_ceil(BLOCKS_PER_GROUP);
            if needed <= u64::from(groups) && geometry.inodes_per_group <= 8 * BLOCK as u32 {
                return geometry;
            }
            groups = u32::try_from(needed)
                .unwrap_or(u32::MAX)
                .max(groups.saturating_add(1));
        }
    }

    fn with_groups(groups: u32, inodes: u32, body: u64, minimum: u64) -> Self {
        let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(INODES_PER_BLOCK);
        let descriptor_blocks = (u64::from(groups) * DESCRIPTOR as u64).div_ceil(BLOCK as u64);
        let block_bitmaps = 1 + descriptor_blocks;
        let inode_bitmaps = block_bitmaps + u64::from(groups);
        let inode_table = inode_bitmaps + u64::from(groups);
        let start =
            inode_table + u64::from(groups) * u64::from(inodes_per_group / INODES_PER_BLOCK);
        Self {
            groups,
            inodes_per_group,
            descriptor_blocks,
            block_bitmaps,
            inode_bitmaps,
            inode_table,
            body: start,
            // A file system of fewer groups than asked for would not be one: at least one block
            // must lie in the last group.
            total: (start + body)
                .max(minimum)
                .max(u64::from(groups - 1) * BLOCKS_PER_GROUP + 1),
        }
    }

    /// All inodes, used or not.
    pub(super) fn inodes(&self) -> u32 {
        self.inodes_per_group * self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_at_every_size_around_a_group() {
        for inodes in [11, 16, 17, 5000, 32768, 32769, 200_000] {
            for body in [1, 100, 30_000, 32_600, 32_700, 32_768, 65_000, 262_144] {
                let geometry = Geometry::new(inodes, body, 0);
                assert!(geometry.inodes() >= inodes);
                assert!(geometry.inodes_per_group <= 32768);
                assert!(geometry.total >= geometry.body + body);
                assert_eq!(
                    geometry.total.div_ceil(BLOCKS_PER_GROUP),
                    u64::from(geometry.groups)
                );
            }
        }
    }

    #[test]
    fn a_sealed_tree_leaves_no_block_and_at_most_fifteen_inodes_a_group() {
        let geometry = Geometry::new(9000, 29_000, 0);
        assert_eq!(geometry.groups, 1);
        assert_eq!(geometry.total, geometry.body + 29_000);
        assert!(geometry.inodes() - 9000 < 16);
    }
}
