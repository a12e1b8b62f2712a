//! The reader: a file system back into a [`Tree`], with what `ext4-view` does not tell (extended
//! attributes, device numbers, hard links). All checksums on the way are checked.
//!
//! It reads what this module's writer and `mke2fs` make: extents, linear and hashed directories,
//! `metadata_csum`, `64bit`, `flex_bg`. It does not replay a journal.

mod directory;
mod inode;
mod superblock;
mod xattr;

use std::collections::{BTreeMap, HashMap};
use std::io;

use bytes::Bytes;

use self::inode::RawInode;
pub use self::superblock::Info;
use self::superblock::Shape;
use super::inode::device_of;
use super::layout::{ROOT_INODE, kind};
use crate::region::ReadAt;
use crate::tree::{Kind, Node, Tree, TreeError};

/// How much a reader takes in before it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names in all folders.
    pub entries: usize,
    /// Bytes of all files' contents together.
    pub bytes: u64,
}

impl Default for Limits {
    /// What a slot can hold with a wide margin: a million names, 2 GiB.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 2 << 30,
        }
    }
}

/// Longest path; only a damaged file system has longer ones.
const MAX_PATH: usize = 1 << 15;

/// Why a file system cannot be read. Offsets are bytes of the file system.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The superblock is not one, or nonsense.
    #[error("byte {offset}: not a usable ext4 superblock: {what}")]
    Superblock {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A feature that this reader does not know.
    #[error("byte {offset}: ext4 feature bits {bits:#x} are not supported ({what})")]
    Feature {
        /// Where they are.
        offset: u64,
        /// Which.
        bits: u32,
        /// What they mean, or which field.
        what: &'static str,
    },
    /// A checksum is wrong.
    #[error("byte {offset}: the checksum of {what} is wrong")]
    Checksum {
        /// Where the thing begins.
        offset: u64,
        /// What it is.
        what: String,
    },
    /// Something else is wrong.
    #[error("{path}: {what}, byte {offset}")]
    Damaged {
        /// The file, or an inode's number.
        path: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// More than [`Limits`] allow.
    #[error("{path}: {what}, more than is allowed")]
    Limit {
        /// Where.
        path: String,
        /// What.
        what: String,
    },
    /// A tree of ours cannot hold it: a socket, a name that is not UTF-8.
    #[error("{path}: {what}")]
    Unsupported {
        /// The file.
        path: String,
        /// Why not.
        what: String,
    },
    /// The tree refuses a path.
    #[error("the file system holds a path that is none")]
    Tree(#[from] TreeError),
    /// Reading failed.
    #[error("reading byte {offset} of the file system failed")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// An opened file system.
#[derive(Debug)]
pub struct Reader<'a, D: ?Sized> {
    device: &'a D,
    info: Info,
    shape: Shape,
    limits: Limits,
}

impl<'a, D: ReadAt + ?Sized> Reader<'a, D> {
    /// Reads and checks superblock and group descriptors.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open(device: &'a D, limits: Limits) -> Result<Self, ReadError> {
        Self::open_checking(device, limits, true)
    }

    fn open_checking(device: &'a D, limits: Limits, sums: bool) -> Result<Self, ReadError> {
        let (info, shape) = superblock::read(device, sums)?;
        Ok(Self {
            device,
            info,
            shape,
            limits,
        })
    }

    /// What the superblock says.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Everything. The first name of a file with several (in the order of paths) has the content,
    /// the others are [`Kind::Hardlink`]s. Origins are empty.
    ///
    /// # Errors
    /// [`ReadError`], for the first thing that is wrong anywhere.
    pub fn tree(&self) -> Result<Tree, ReadError> {
        let mut paths: BTreeMap<String, u32> = BTreeMap::new();
        let mut folders: HashMap<u32, String> = HashMap::new();
        let mut todo = vec![("/".to_string(), ROOT_INODE)];
        while let Some((path, number)) = todo.pop() {
            let inode = self.inode(number, &path)?;
            if inode.mode & kind::MASK != kind::DIR.0 {
                return Err(self.damaged(&path, number, "an entry says that it is a folder"));
            }
            if let Some(other) = folders.insert(number, path.clone()) {
                let what = format!("the folder is also {other}");
                return Err(self.damaged(&path, number, &what));
            }
            for entry in self.directory(&inode, &path)? {
                let name = String::from_utf8(entry.name).map_err(|bad| ReadError::Unsupported {
                    path: path.clone(),
                    what: format!("a name is not UTF-8: {:?}", bad.as_bytes()),
                })?;
                let below = format!("{}/{name}", path.trim_end_matches('/'));
                if below.len() > MAX_PATH || paths.len() >= self.limits.entries {
                    return Err(ReadError::Limit {
                        what: format!("{} names, {} bytes of path", paths.len(), below.len()),
                        path,
                    });
                }
                if entry.kind == kind::DIR.1 {
                    todo.push((below.clone(), entry.inode));
                }
                if paths.insert(below.clone(), entry.inode).is_some() {
                    return Err(self.damaged(&below, number, "the name is there twice"));
                }
            }
            paths.insert(path, number);
        }

        let mut tree = Tree::new();
        let mut first: HashMap<u32, String> = HashMap::new();
        let mut budget = self.limits.bytes;
        for (path, number) in paths {
            let inode = self.inode(number, &path)?;
            let kind = match first.get(&number) {
                Some(target) => Kind::Hardlink(target.clone()),
                None => self.kind(&inode, &path, &mut budget)?,
            };
            let mut node = Node::new(kind, inode.mode & 0o7777, "");
            node.uid = inode.uid;
            node.gid = inode.gid;
            node.mtime = inode.mtime;
            node.xattrs = self.xattrs(&inode, &path)?;
            if matches!(node.kind, Kind::File(_)) {
                first.insert(number, path.clone());
            }
            tree.insert(path, node)?;
        }
        Ok(tree)
    }

    /// What an inode is, with its content.
    fn kind(&self, inode: &RawInode, path: &str, budget: &mut u64) -> Result<Kind, ReadError> {
        Ok(match inode.mode & kind::MASK {
            bits if bits == kind::DIR.0 => Kind::Dir,
            bits if bits == kind::FILE.0 => {
                *budget = budget
                    .checked_sub(inode.size)
                    .ok_or_else(|| ReadError::Limit {
                        path: path.to_string(),
                        what: format!("{} bytes of contents", self.limits.bytes),
                    })?;
                Kind::File(Bytes::from(self.content(inode, path)?))
            }
            bits if bits == kind::SYMLINK.0 => {
                let target = if !inode.has_extents() && inode.size < 60 {
                    inode.block[..inode.size as usize].to_vec()
                } else if inode.size < self.shape.block {
                    self.content(inode, path)?
                } else {
                    return Err(self.damaged(path, inode.number, "the symlink is too long"));
                };
                Kind::Symlink(
                    String::from_utf8(target).map_err(|_| ReadError::Unsupported {
                        path: path.to_string(),
                        what: "the symlink's target is not UTF-8".into(),
                    })?,
                )
            }
            bits if bits == kind::CHAR.0 => {
                let (major, minor) = device_of(&inode.block);
                Kind::CharDevice(major, minor)
            }
            bits if bits == kind::BLOCK.0 => {
                let (major, minor) = device_of(&inode.block);
                Kind::BlockDevice(major, minor)
            }
            bits if bits == kind::FIFO.0 => Kind::Fifo,
            bits => {
                let what = match bits == kind::SOCKET.0 {
                    true => "a socket".to_string(),
                    false => format!("of the unknown type {bits:#o}"),
                };
                return Err(ReadError::Unsupported {
                    path: path.to_string(),
                    what,
                });
            }
        })
    }

    fn damaged(&self, path: &str, inode: u32, what: &str) -> ReadError {
        ReadError::Damaged {
            path: path.to_string(),
            offset: self.inode_offset(inode).unwrap_or(0),
            what: format!("{what} (inode {inode})"),
        }
    }

    fn get(&self, out: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.device
            .read_exact_at(out, offset)
            .map_err(|source| ReadError::Read { offset, source })
    }

    fn get_block(&self, number: u64, path: &str) -> Result<Vec<u8>, ReadError> {
        if number == 0 || number >= self.info.blocks {
            return Err(ReadError::Damaged {
                path: path.to_string(),
                offset: 0,
                what: format!("block {number} is outside of the file system"),
            });
        }
        let mut block = vec![0; self.shape.block as usize];
        self.get(&mut block, number * self.shape.block)?;
        Ok(block)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// For fuzzing: any bytes as a file system (zeros follow them), of which everything is read.
/// Checksums are not looked at: they would hide what is behind them.
pub fn fuzz(bytes: &[u8]) {
    let limits = Limits {
        entries: 10_000,
        bytes: 1 << 24,
    };
    let device = crate::region::Padded::new(bytes, 1 << 30);
    if let Ok(reader) = Reader::open_checking(&device, limits, false) {
        let _ = reader.tree();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext4::{Options, write};
    use crate::region::Memory;
    use uuid::Uuid;

    #[test]
    fn bent_file_systems_end_in_words() {
        let mut tree = Tree::new();
        let mut put = |path: &str, kind| {
            let mut node = Node::new(kind, 0o755, "");
            node.xattrs.insert("user.x".into(), vec![1; 300]);
            tree.insert(path, node).unwrap();
        };
        put("/", Kind::Dir);
        put("/dir", Kind::Dir);
        put("/dir/file", Kind::File(vec![7; 9000].into()));
        put("/dir/link", Kind::Symlink("x/".repeat(40)));
        // Every other block is a hole: extents in blocks of their own.
        let mut holes = vec![0; 20 * 4096];
        for block in holes.chunks_mut(8192) {
            block[0] = 1;
        }
        put("/holes", Kind::File(holes.into()));
        put("/null", Kind::CharDevice(1, 3));
        let options = Options {
            uuid: Uuid::nil(),
            hash_seed: Uuid::nil(),
            label: "seed".into(),
            clock: 0,
            max_bytes: u64::MAX,
        };
        let out = Memory::new(0);
        write(&tree, &options, &out).unwrap();
        let seed = out.into_inner();
        let whole = crate::region::Padded::new(&seed, 1 << 30);
        let reader = Reader::open_checking(&whole, Limits::default(), false).unwrap();
        assert_eq!(reader.tree().unwrap().len(), tree.len() + 1);
        crate::fuzzing::mutate_for(std::time::Duration::from_secs(2), &[seed], fuzz);
    }
}
