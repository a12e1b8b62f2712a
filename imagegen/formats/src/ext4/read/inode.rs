//! Inodes, their extents and contents.

use super::super::checksum;
use super::super::inode::MAX_EXTENT;
use super::super::layout::{EXTENT_MAGIC, FLAG_EXTENTS};
use super::{ReadError, Reader, u16_at, u32_at};
use crate::region::ReadAt;

/// An inode as read.
pub(super) struct RawInode {
    pub(super) number: u32,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) flags: u32,
    pub(super) block: [u8; 60],
    pub(super) xattr_block: u64,
    /// All bytes of the inode after `i_extra_isize`.
    pub(super) xattrs: Vec<u8>,
    /// Seed of the checksums of its blocks.
    pub(super) seed: Option<u32>,
}

impl RawInode {
    pub(super) fn has_extents(&self) -> bool {
        self.flags & FLAG_EXTENTS != 0
    }
}

/// Blocks of a file: first of the file, first of the file system, how many.
type Mapped = (u64, u64, u64);

/// Deepest extent tree that Linux makes.
const MAX_DEPTH: u16 = 5;

impl<D: ReadAt + ?Sized> Reader<'_, D> {
    /// Where an inode is, if there is one with that number.
    pub(super) fn inode_offset(&self, number: u32) -> Option<u64> {
        let index = number.checked_sub(1)?;
        let table = self
            .shape
            .tables
            .get((index / self.shape.inodes_per_group) as usize)?;
        let within = u64::from(index % self.shape.inodes_per_group) * self.shape.inode_size as u64;
        table.checked_mul(self.shape.block)?.checked_add(within)
    }

    pub(super) fn inode(&self, number: u32, path: &str) -> Result<RawInode, ReadError> {
        let offset = self
            .inode_offset(number)
            .ok_or_else(|| ReadError::Damaged {
                path: path.to_string(),
                offset: 0,
                what: format!("there is no inode {number}"),
            })?;
        let mut bytes = vec![0; self.shape.inode_size];
        self.get(&mut bytes, offset)?;
        let extra = match bytes.len() {
            128 => 0,
            _ => usize::from(u16_at(&bytes, 0x80)),
        };
        if 128 + extra > bytes.len() || extra % 4 != 0 {
            return Err(self.damaged(path, number, "the inode's extra size is wrong"));
        }
        let generation = u32_at(&bytes, 0x64);
        let seed = self
            .shape
            .seed
            .map(|seed| checksum::of_inode(seed, number, generation));
        if let Some(seed) = seed {
            check_sum(&mut bytes, extra, seed).ok_or_else(|| ReadError::Checksum {
                offset,
                what: format!("inode {number} ({path})"),
            })?;
        }
        let low = i64::from(u32_at(&bytes, 0x10) as i32);
        let epochs = match extra {
            0..12 => 0,
            _ => i64::from(u32_at(&bytes, 0x88) & 3),
        };
        let mut block = [0; 60];
        block.copy_from_slice(&bytes[0x28..0x64]);
        Ok(RawInode {
            number,
            mode: u16_at(&bytes, 0),
            uid: u32::from(u16_at(&bytes, 0x02)) | u32::from(u16_at(&bytes, 0x78)) << 16,
            gid: u32::from(u16_at(&bytes, 0x18)) | u32::from(u16_at(&bytes, 0x7A)) << 16,
            size: u64::from(u32_at(&bytes, 0x04)) | u64::from(u32_at(&bytes, 0x6C)) << 32,
            mtime: low + (epochs << 32),
            flags: u32_at(&bytes, 0x20),
            block,
            xattr_block: u64::from(u32_at(&bytes, 0x68)) | u64::from(u16_at(&bytes, 0x76)) << 32,
            xattrs: bytes[128 + extra..].to_vec(),
            seed,
        })
    }

    /// All bytes of a file; the caller has looked at its size.
    pub(super) fn content(&self, inode: &RawInode, path: &str) -> Result<Vec<u8>, ReadError> {
        let block = self.shape.block;
        let mut out = vec![0; inode.size as usize];
        for (logical, physical, len) in self.extents(inode, path)? {
            let start = logical * block;
            let end = ((logical + len) * block).min(inode.size);
            // Blocks after the end (preallocated) hold nothing.
            if start < end {
                self.get(&mut out[start as usize..end as usize], physical * block)?;
            }
        }
        Ok(out)
    }

    /// The initialised extents of an inode, in order.
    fn extents(&self, inode: &RawInode, path: &str) -> Result<Vec<Mapped>, ReadError> {
        if !inode.has_extents() {
            // Only what has no blocks may be without: an empty file of an old kernel.
            return match inode.block.iter().all(|&b| b == 0) {
                true => Ok(Vec::new()),
                false => Err(ReadError::Unsupported {
                    path: path.to_string(),
                    what: "the file is mapped block by block, not by extents".into(),
                }),
            };
        }
        let mut out = Vec::new();
        let mut after = 0;
        self.extent_node(inode, &inode.block, None, path, &mut after, &mut out)?;
        Ok(out)
    }

    /// One node of the tree; `above` is the depth of the node above.
    fn extent_node(
        &self,
        inode: &RawInode,
        node: &[u8],
        above: Option<u16>,
        path: &str,
        after: &mut u64,
        out: &mut Vec<Mapped>,
    ) -> Result<(), ReadError> {
        let bad = |what: &str| self.damaged(path, inode.number, what);
        let (count, max, depth) = (u16_at(node, 2), u16_at(node, 4), u16_at(node, 6));
        let room = (node.len() - 12) / 12;
        if u16_at(node, 0) != EXTENT_MAGIC || count > max || usize::from(max) > room {
            return Err(bad("a node of the extent tree is none"));
        }
        if depth > MAX_DEPTH || above.is_some_and(|above| depth + 1 != above) {
            return Err(bad("the extent tree's depth is wrong"));
        }
        for entry in node[12..].chunks_exact(12).take(count.into()) {
            let logical = u64::from(u32_at(entry, 0));
            // Also what makes a tree that leads back to itself end.
            if logical < *after {
                return Err(bad("the extents are not in order"));
            }
            if depth > 0 {
                let number = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
                let block = self.get_block(number, path)?;
                if let Some(seed) = inode.seed {
                    let tail = 12 + 12 * usize::from(u16_at(&block, 4));
                    let sum = (tail + 4 <= block.len()).then(|| u32_at(&block, tail));
                    if sum != Some(checksum::crc(seed, &block[..tail.min(block.len())])) {
                        return Err(ReadError::Checksum {
                            offset: number * self.shape.block,
                            what: format!("an extent block of {path}"),
                        });
                    }
                }
                let before = out.len();
                self.extent_node(inode, &block, Some(depth), path, after, out)?;
                // A node without extents lets nothing grow: it could be met for ever.
                if out.len() == before && u16_at(&block, 2) == 0 {
                    return Err(bad("an extent block is empty"));
                }
                continue;
            }
            let raw = u64::from(u16_at(entry, 4));
            let physical = u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32;
            // Longer ones are allocated, but not written: zeros.
            let written = raw <= u64::from(MAX_EXTENT);
            let len = if written {
                raw
            } else {
                raw - u64::from(MAX_EXTENT)
            };
            if len == 0 || physical == 0 || physical + len > self.info.blocks {
                return Err(bad("an extent is outside of the file system"));
            }
            *after = logical + len;
            if written {
                out.push((logical, physical, len));
            }
        }
        Ok(())
    }
}

/// Checks and clears the checksum of an inode.
fn check_sum(bytes: &mut [u8], extra: usize, seed: u32) -> Option<()> {
    let mut sum = u32::from(u16_at(bytes, 0x7C));
    bytes[0x7C..0x7E].fill(0);
    let wide = extra >= 4;
    if wide {
        sum |= u32::from(u16_at(bytes, 0x82)) << 16;
        bytes[0x82..0x84].fill(0);
    }
    let ours = checksum::crc(seed, bytes);
    let ours = if wide { ours } else { ours & 0xFFFF };
    (ours == sum).then_some(())
}
