//! From a tree to numbered inodes: who is called what, how many links lead there, and which
//! blocks each needs, before any of them has a place.

use std::collections::HashMap;

use bytes::Bytes;

use super::directory::{self, Entry};
use super::inode::{self, FIRST_TIME, LAST_TIME, MAX_EXTENT, tree_blocks};
use super::layout::{BLOCK, FIRST_INODE, ROOT_INODE, kind};
use super::xattr::{self, Xattrs};
use super::{Error, Options};
use crate::region::is_zero;
use crate::tree::{Kind, Tree};

/// More names than this an inode cannot have (`EXT4_LINK_MAX`); a folder then says 1.
const MAX_LINKS: u32 = 65_000;
/// A file's blocks are counted in 32 bits.
const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK as u64;
/// Longest symlink target inside the inode.
const FAST_SYMLINK: usize = 59;

/// Blocks of a file that are not zero, in order: first block and how many (at most
/// [`MAX_EXTENT`]).
pub(super) type Runs = Vec<(u32, u32)>;

/// What an inode points at.
#[derive(Debug)]
pub(super) enum Body<'a> {
    /// Encoded directory blocks.
    Dir(Vec<u8>),
    File(&'a Bytes, Runs),
    /// A symlink target that does not fit into the inode.
    Symlink(&'a str),
    /// `i_block` itself: device number, short symlink, or nothing.
    Inline([u8; 60]),
}

/// One inode to be.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    /// With type bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) time: i64,
    pub(super) links: u16,
    pub(super) size: u64,
    pub(super) body: Body<'a>,
    pub(super) xattrs: Xattrs,
}

impl Planned<'_> {
    /// Blocks before the file data: directory, symlink, extent tree, attributes.
    pub(super) fn meta_blocks(&self) -> u64 {
        let body = match &self.body {
            Body::Dir(blocks) => (blocks.len() / BLOCK) as u64,
            Body::File(_, runs) => tree_blocks(runs.len()),
            Body::Symlink(_) => 1,
            Body::Inline(_) => 0,
        };
        body + u64::from(self.xattrs.block.is_some())
    }

    /// Blocks of file data.
    pub(super) fn data_blocks(&self) -> u64 {
        match &self.body {
            Body::File(_, runs) => runs.iter().map(|run| u64::from(run.1)).sum(),
            _ => 0,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }
}

/// Inode number of the `index`th planned file: the root, `lost+found`, then all others.
pub(super) fn number(index: usize) -> u32 {
    match index {
        0 => ROOT_INODE,
        _ => FIRST_INODE - 1 + index as u32,
    }
}

/// Path of the folder where e2fsck puts what it finds.
const LOST_FOUND: &str = "/lost+found";

/// A folder while its entries are gathered.
struct Folder<'a> {
    index: usize,
    parent: usize,
    subfolders: u32,
    entries: Vec<Entry<'a>>,
}

impl Folder<'_> {
    fn new(index: usize, parent: usize) -> Self {
        Self {
            index,
            parent,
            subfolders: 0,
            entries: Vec::new(),
        }
    }
}

/// Plans all of `tree`. The result's order is that of [`number`].
pub(super) fn plan<'a>(
    tree: &'a Tree,
    options: &Options,
    fs_seed: u32,
) -> Result<Vec<Planned<'a>>, Error> {
    tree.check()?;
    if !matches!(tree.get("/").map(|node| &node.kind), Some(Kind::Dir)) {
        return Err(Error::NoRoot);
    }
    let found = tree.get(LOST_FOUND);
    if found.is_some_and(|node| node.kind != Kind::Dir) {
        return Err(Error::LostFound);
    }
    let mut files = Vec::with_capacity(tree.len() + 1);
    let mut index_of = HashMap::with_capacity(tree.len());
    let mut folders: Vec<Folder<'a>> = Vec::new();
    let mut folder_of: HashMap<usize, usize> = HashMap::new();

    let others = tree
        .iter()
        .filter(|(path, _)| *path != "/" && *path != LOST_FOUND);
    let root = tree.iter().next();
    let lost = tree.below(LOST_FOUND).next();
    for (path, node) in root.into_iter().chain(lost).chain(others) {
        if files.len() == 1 && path != LOST_FOUND {
            files.push(lost_found(options));
        }
        let (type_bits, size, body) = match &node.kind {
            Kind::Hardlink(_) => continue,
            Kind::Dir => (kind::DIR, 0, Body::Dir(Vec::new())),
            Kind::File(data) => {
                let size = data.len() as u64;
                if size > MAX_FILE {
                    return Err(Error::FileTooBig {
                        path: path.to_string(),
                        size,
                    });
                }
                (kind::FILE, size, Body::File(data, runs(data)))
            }
            Kind::Symlink(target) => {
                let size = target.len() as u64;
                if target.is_empty() || target.len() >= BLOCK || target.contains('\0') {
                    return Err(Error::Symlink {
                        path: path.to_string(),
                        len: target.len(),
                    });
                }
                let body = if target.len() <= FAST_SYMLINK {
                    let mut block = [0; 60];
                    block[..target.len()].copy_from_slice(target.as_bytes());
                    Body::Inline(block)
                } else {
                    Body::Symlink(target)
                };
                (kind::SYMLINK, size, body)
            }
            Kind::CharDevice(major, minor) => {
                (kind::CHAR, 0, Body::Inline(device(path, *major, *minor)?))
            }
            Kind::BlockDevice(major, minor) => {
                (kind::BLOCK, 0, Body::Inline(device(path, *major, *minor)?))
            }
            Kind::Fifo => (kind::FIFO, 0, Body::Inline([0; 60])),
        };
        let xattrs = xattr::encode(&node.xattrs).map_err(|source| Error::Xattr {
            path: path.to_string(),
            source,
        })?;
        index_of.insert(path, files.len());
        files.push(Planned {
            mode: type_bits.0 | (node.mode & 0o7777),
            uid: node.uid,
            gid: node.gid,
            time: node.mtime.min(options.clock).clamp(FIRST_TIME, LAST_TIME),
            links: 1,
            size,
            body,
            xattrs,
        });
    }
    if files.len() == 1 {
        files.push(lost_found(options));
    }
    if u32::try_from(files.len()).is_err() {
        return Err(Error::TooManyFiles(files.len()));
    }

    // Who lies where: folders come before what is in them.
    let mut links = vec![0u32; files.len()];
    for index in 0..2 {
        folder_of.insert(index, folders.len());
        folders.push(Folder::new(index, 0));
    }
    folders[0].subfolders = 1;
    folders[0].entries.push(Entry {
        inode: FIRST_INODE,
        kind: kind::DIR.1,
        name: &LOST_FOUND[1..],
    });
    for (path, node) in tree.iter() {
        if path == "/" || path == LOST_FOUND {
            continue;
        }
        let own = match &node.kind {
            Kind::Hardlink(target) => target.as_str(),
            _ => path,
        };
        let (parent, name) = match path.rfind('/') {
            Some(0) | None => ("/", path.trim_start_matches('/')),
            Some(at) => (&path[..at], &path[at + 1..]),
        };
        // Both were checked by `tree.check()`.
        let (Some(&index), Some(&parent)) = (index_of.get(own), index_of.get(parent)) else {
            return Err(Error::NoRoot);
        };
        links[index] += 1;
        if files[index].is_dir() {
            folder_of.insert(index, folders.len());
            folders.push(Folder::new(index, parent));
        } else if links[index] > MAX_LINKS {
            return Err(Error::TooManyLinks(own.to_string()));
        }
        let parent = &mut folders[folder_of[&parent]];
        parent.subfolders += u32::from(files[index].is_dir());
        parent.entries.push(Entry {
            inode: number(index),
            kind: type_byte(files[index].mode),
            name,
        });
    }
    for (file, links) in files.iter_mut().zip(links) {
        file.links = links as u16;
    }
    for folder in folders {
        let blocks = directory::encode(
            number(folder.index),
            number(folder.parent),
            &folder.entries,
            fs_seed,
        );
        let file = &mut files[folder.index];
        file.size = blocks.len() as u64;
        file.links = match folder.subfolders + 2 {
            many if many >= MAX_LINKS => 1,
            few => few as u16,
        };
        file.body = Body::Dir(blocks);
    }
    Ok(files)
}

/// The folder that every ext4 has, where the tree brings none.
fn lost_found<'a>(options: &Options) -> Planned<'a> {
    Planned {
        mode: kind::DIR.0 | 0o700,
        uid: 0,
        gid: 0,
        time: options.clock.clamp(FIRST_TIME, LAST_TIME),
        links: 2,
        size: 0,
        body: Body::Dir(Vec::new()),
        xattrs: Xattrs::default(),
    }
}

/// The type byte of directory entries for a mode.
fn type_byte(mode: u16) -> u8 {
    [
        kind::FIFO,
        kind::CHAR,
        kind::DIR,
        kind::BLOCK,
        kind::FILE,
        kind::SYMLINK,
    ]
    .into_iter()
    .find(|(bits, _)| *bits == mode & kind::MASK)
    .map_or(0, |(_, byte)| byte)
}

/// The kernel has 12 bits for a device's major number and 20 for the minor one.
fn device(path: &str, major: u32, minor: u32) -> Result<[u8; 60], Error> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::Device {
            path: path.to_string(),
            major,
            minor,
        });
    }
    Ok(inode::device(major, minor))
}

/// The blocks of `data` that are not all zero; each zero block becomes a hole. (A hole never costs
/// more than it saves: an extent more is 12 bytes of an extent block, a hole saves a block.)
fn runs(data: &[u8]) -> Runs {
    let mut runs: Runs = Vec::new();
    for (at, block) in data.chunks(BLOCK).enumerate() {
        if is_zero(block) {
            continue;
        }
        let at = at as u32;
        match runs.last_mut() {
            Some((first, len)) if *first + *len == at && *len < MAX_EXTENT => *len += 1,
            _ => runs.push((at, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_zero_blocks_out() {
        let mut data = vec![0; 5 * BLOCK + 10];
        assert!(runs(&data).is_empty());
        data[0] = 1;
        data[2 * BLOCK - 1] = 1;
        data[5 * BLOCK + 9] = 1;
        assert_eq!(runs(&data), [(0, 2), (5, 1)]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn a_run_ends_at_the_longest_extent() {
        let data = vec![1; (MAX_EXTENT as usize + 1) * BLOCK];
        assert_eq!(runs(&data), [(0, MAX_EXTENT), (MAX_EXTENT, 1)]);
    }
}
