//! Extended attributes: in the inode as far as they fit, the rest in one block.

use std::collections::BTreeMap;

use super::checksum;
use super::inode::{put16, put32};
use super::layout::{BLOCK, EXTRA_ISIZE, INODE, XATTR_MAGIC};

/// Name prefixes that the disk holds as a number. POSIX ACLs (2, 3) have another form on the disk
/// and are not here.
pub(super) const PREFIXES: [(u8, &str); 4] = [
    (1, "user."),
    (4, "trusted."),
    (6, "security."),
    (7, "system."),
];

/// Bytes for attributes in an inode, the magic number included.
const IN_INODE: usize = INODE - 128 - EXTRA_ISIZE as usize;
/// Header of an attribute block.
const HEADER: usize = 32;

/// Attributes as they go to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Xattrs {
    /// For [`super::inode::Inode::xattrs`].
    pub(super) inode: Vec<u8>,
    /// The block, still without checksum: see [`seal`].
    pub(super) block: Option<Vec<u8>>,
}

/// Why attributes cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The name has no prefix that ext4 knows, or is a POSIX ACL.
    #[error("ext4 cannot hold an attribute named {0:?}")]
    Name(String),
    /// They need more than an inode and a block.
    #[error("{bytes} bytes of attributes do not fit into an inode and one block")]
    TooMuch {
        /// Names, values and entries.
        bytes: usize,
    },
}

struct Entry<'a> {
    index: u8,
    name: &'a [u8],
    value: &'a [u8],
}

impl Entry<'_> {
    /// Entry and padded value.
    fn size(&self) -> usize {
        (16 + self.name.len()).next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// `ext4_xattr_hash_entry`.
    fn hash(&self) -> u32 {
        let mut hash = 0u32;
        for &byte in self.name {
            hash = hash.rotate_left(5) ^ u32::from(byte);
        }
        for word in self.value.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(bytes);
        }
        hash
    }
}

/// Splits `xattrs` between inode and block.
pub(super) fn encode(xattrs: &BTreeMap<String, Vec<u8>>) -> Result<Xattrs, XattrError> {
    let mut entries = Vec::with_capacity(xattrs.len());
    for (full, value) in xattrs {
        let found = PREFIXES
            .iter()
            .find_map(|&(index, prefix)| Some((index, full.strip_prefix(prefix)?)));
        match found {
            Some((index, name))
                if !name.is_empty()
                    && name.len() <= 255
                    && !full.starts_with("system.posix_acl") =>
            {
                entries.push(Entry {
                    index,
                    name: name.as_bytes(),
                    value,
                });
            }
            _ => return Err(XattrError::Name(full.clone())),
        }
    }
    // The kernel looks a name up in a block by this order.
    entries.sort_by_key(|e| (e.index, e.name.len(), e.name));
    // The magic number and the four zero bytes that end the list.
    let mut room = IN_INODE - 8;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for entry in entries {
        match room.checked_sub(entry.size()) {
            Some(rest) => {
                room = rest;
                inside.push(entry);
            }
            None => outside.push(entry),
        }
    }
    let mut out = Xattrs::default();
    if !inside.is_empty() {
        out.inode = vec![0; IN_INODE];
        put32(&mut out.inode, 0, XATTR_MAGIC);
        // In an inode, values are counted from the first entry, and hashes stay 0.
        fill(&mut out.inode[4..], 0, &inside, |_| 0);
    }
    if !outside.is_empty() {
        let bytes = outside.iter().map(Entry::size).sum::<usize>();
        if bytes > BLOCK - HEADER - 4 {
            return Err(XattrError::TooMuch { bytes });
        }
        let mut block = vec![0; BLOCK];
        put32(&mut block, 0x00, XATTR_MAGIC);
        put32(&mut block, 0x04, 1);
        put32(&mut block, 0x08, 1);
        let hash = outside
            .iter()
            .fold(0u32, |hash, e| hash.rotate_left(16) ^ e.hash());
        put32(&mut block, 0x0C, hash);
        // In a block, values are counted from the start of the block.
        fill(&mut block, HEADER, &outside, |entry| entry.hash());
        out.block = Some(block);
    }
    Ok(out)
}

/// Entries upwards from `start`, values downwards from the end of `area`.
fn fill(area: &mut [u8], start: usize, entries: &[Entry<'_>], hash: impl Fn(&Entry<'_>) -> u32) {
    let (mut at, mut value_at) = (start, area.len());
    for entry in entries {
        value_at -= entry.value.len().next_multiple_of(4);
        area[value_at..value_at + entry.value.len()].copy_from_slice(entry.value);
        let slot = &mut area[at..];
        slot[0] = entry.name.len() as u8;
        slot[1] = entry.index;
        // An empty value lies nowhere.
        let offset = if entry.value.is_empty() { 0 } else { value_at };
        put16(slot, 2, offset as u16);
        put32(slot, 8, entry.value.len() as u32);
        put32(slot, 12, hash(entry));
        slot[16..16 + entry.name.len()].copy_from_slice(entry.name);
        at += (16 + entry.name.len()).next_multiple_of(4);
    }
}

/// Writes the checksum of an attribute block that goes to block `number`.
pub(super) fn seal(block: &mut [u8], number: u64, fs_seed: u32) {
    put32(block, 0x10, 0);
    let sum = checksum::crc(checksum::crc(fs_seed, &number.to_le_bytes()), block);
    put32(block, 0x10, sum);
}
