//! Directories. A hashed one reads like a linear one: its index hides in unused entries.

use super::super::checksum;
use super::inode::RawInode;
use super::{ReadError, Reader, u16_at, u32_at};
use crate::region::ReadAt;

/// A name, without `.` and `..`.
pub(super) struct Entry {
    pub(super) inode: u32,
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
}

/// `i_flags`: the directory is hashed.
const FLAG_INDEX: u32 = 0x1000;
/// Bytes of all entries of a directory; more is nonsense.
const MOST_BYTES: u64 = 1 << 28;

impl<D: ReadAt + ?Sized> Reader<'_, D> {
    /// The entries of a folder, in the order of the disk.
    pub(super) fn directory(&self, inode: &RawInode, path: &str) -> Result<Vec<Entry>, ReadError> {
        if inode.size > MOST_BYTES || !inode.size.is_multiple_of(self.shape.block) {
            return Err(self.damaged(path, inode.number, "the folder's size is wrong"));
        }
        let bytes = self.content(inode, path)?;
        let mut out = Vec::new();
        for block in bytes.chunks_exact(self.shape.block as usize) {
            if let Some(seed) = inode.seed {
                self.check_tail(inode, block, seed, path)?;
            }
            let mut rest = block;
            while rest.len() >= 8 {
                let number = u32_at(rest, 0);
                let name_len = usize::from(rest[6]);
                let len = match usize::from(u16_at(rest, 4)) {
                    // A block of 64 KiB does not fit into 16 bits.
                    0 | 0xFFFF if block.len() == 1 << 16 => rest.len(),
                    len => len,
                };
                if len < 8 + name_len || len % 4 != 0 || len > rest.len() {
                    return Err(self.damaged(path, inode.number, "a folder's entry is damaged"));
                }
                let name = &rest[8..8 + name_len];
                if number != 0 && name != b"." && name != b".." {
                    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                        return Err(self.damaged(path, inode.number, "a name is none"));
                    }
                    out.push(Entry {
                        inode: number,
                        kind: rest[7],
                        name: name.to_vec(),
                    });
                }
                rest = &rest[len..];
            }
        }
        Ok(out)
    }

    /// The checksum at the end of a block of entries; index blocks of hashed directories have
    /// another, which is not looked at.
    fn check_tail(
        &self,
        inode: &RawInode,
        block: &[u8],
        seed: u32,
        path: &str,
    ) -> Result<(), ReadError> {
        let (entries, tail) = block.split_at(block.len() - 12);
        let is_tail = u32_at(tail, 0) == 0 && u16_at(tail, 4) == 12 && tail[6..8] == [0, 0xDE];
        if !is_tail && inode.flags & FLAG_INDEX != 0 {
            return Ok(());
        }
        if is_tail && checksum::crc(seed, entries) == u32_at(tail, 8) {
            return Ok(());
        }
        Err(ReadError::Checksum {
            offset: self.inode_offset(inode.number).unwrap_or(0),
            what: format!("a block of the folder {path}"),
        })
    }
}
