//! Extended attributes, from inode and block.

use std::collections::BTreeMap;

use super::super::checksum;
use super::super::layout::XATTR_MAGIC;
use super::super::xattr::PREFIXES;
use super::inode::RawInode;
use super::{ReadError, Reader, u16_at, u32_at};
use crate::region::ReadAt;

impl<D: ReadAt + ?Sized> Reader<'_, D> {
    pub(super) fn xattrs(
        &self,
        inode: &RawInode,
        path: &str,
    ) -> Result<BTreeMap<String, Vec<u8>>, ReadError> {
        let mut out = BTreeMap::new();
        let bad = |what: &str| self.damaged(path, inode.number, what);
        if inode.xattrs.len() > 4 && u32_at(&inode.xattrs, 0) == XATTR_MAGIC {
            // In an inode, values are counted from the first entry.
            let area = &inode.xattrs[4..];
            entries(area, 0, &mut out).map_err(bad)?;
        }
        if inode.xattr_block != 0 {
            let mut block = self.get_block(inode.xattr_block, path)?;
            if u32_at(&block, 0) != XATTR_MAGIC || u32_at(&block, 8) != 1 {
                return Err(bad("the block of attributes is none"));
            }
            let sum = u32_at(&block, 0x10);
            block[0x10..0x14].fill(0);
            if let Some(seed) = self.shape.seed
                && checksum::crc(
                    checksum::crc(seed, &inode.xattr_block.to_le_bytes()),
                    &block,
                ) != sum
            {
                return Err(ReadError::Checksum {
                    offset: inode.xattr_block * self.shape.block,
                    what: format!("the attributes of {path}"),
                });
            }
            entries(&block, 32, &mut out).map_err(bad)?;
        }
        Ok(out)
    }
}

/// The entries of `area` from `start`; value offsets count from the start of `area`.
fn entries(
    area: &[u8],
    start: usize,
    out: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), &'static str> {
    let mut at = start;
    // Four zero bytes end the list.
    while area.len() >= at + 16 && u32_at(area, at) != 0 {
        let entry = &area[at..];
        let (name_len, index) = (usize::from(entry[0]), entry[1]);
        let value_at = usize::from(u16_at(entry, 2));
        let value_len = u32_at(entry, 8) as usize;
        if u32_at(entry, 4) != 0 {
            return Err("an attribute's value is in an inode of its own");
        }
        let name = entry
            .get(16..16 + name_len)
            .ok_or("an attribute's name is outside")?;
        let value = value_at
            .checked_add(value_len)
            .and_then(|end| area.get(value_at..end))
            .ok_or("an attribute's value is outside")?;
        let name = String::from_utf8_lossy(name);
        let full = match PREFIXES.iter().find(|(number, _)| *number == index) {
            Some((_, prefix)) => format!("{prefix}{name}"),
            None => match index {
                2 => "system.posix_acl_access".to_string(),
                3 => "system.posix_acl_default".to_string(),
                _ => return Err("an attribute has an unknown prefix"),
            },
        };
        out.insert(full, value.to_vec());
        at += (16 + name_len).next_multiple_of(4);
    }
    Ok(())
}
