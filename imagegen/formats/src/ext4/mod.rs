//! ext4: a writer of sealed (read-only, journal-less) file systems from a [`Tree`], and a reader
//! that gives the tree back.
//!
//! The writer makes what dm-verity then covers: no journal, no free block, no copy of the
//! superblock, all metadata in front, file contents in path order, each contiguous and aligned to
//! 4 KiB, blocks of zeros left as holes. Nothing in it depends on the time, the machine or chance:
//! one tree and one [`Options`] give one image. A change in one file leaves the blocks of the
//! others as they are, at most at other places, so that two versions compare block by block by
//! their hashes.
//!
//! What it does not do: POSIX ACLs, sockets, inline data, hashed directories (the kernel caches
//! what it looked up), encryption, quotas.
//!
//! Sources of the format: the kernel's `Documentation/filesystems/ext4` and `fs/ext4`.

mod checksum;
mod directory;
mod inode;
mod layout;
mod plan;
mod read;
mod superblock;
mod writer;
mod xattr;

use std::io;

use uuid::Uuid;

pub use read::{Info, Limits, ReadError, Reader, fuzz};
pub use xattr::XattrError;

use crate::region::{Extents, WriteAt};
use crate::tree::{Kind, Node, Tree, TreeError};
use layout::BLOCK;

/// Bytes of a block, of file systems that this module writes.
pub const BLOCK_SIZE: u64 = BLOCK as u64;

/// Label of an empty file system that the first boot is to make again at its real size.
pub const PRISTINE_LABEL: &str = "larder-pristine";

/// All that a file system has besides its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `s_uuid`; the seed of all checksums.
    pub uuid: Uuid,
    /// `s_hash_seed`, of directory hashes; written, though the writer makes no hashed directory.
    pub hash_seed: Uuid,
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Seconds since 1970: when the file system was made. No file is younger.
    pub clock: i64,
    /// The most bytes that the file system may take: the size of its partition.
    pub max_bytes: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size of the file system in blocks of [`BLOCK_SIZE`].
    pub blocks: u64,
    /// Inodes in use, the ten reserved ones included.
    pub inodes: u32,
    /// The byte ranges that were written, in whole blocks; all others must read as zero.
    pub data: Extents,
}

impl Summary {
    /// Size of the file system in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_SIZE
    }
}

/// Why a file system cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree is not one.
    #[error("the tree cannot be written as ext4")]
    Tree(#[from] TreeError),
    /// There is no `/`, or it is not a folder.
    #[error("the tree has no root folder")]
    NoRoot,
    /// `/lost+found` is there and not a folder.
    #[error("/lost+found is not a folder; e2fsck needs it to be one")]
    LostFound,
    /// The label does not fit.
    #[error("the label {0:?} is longer than 16 bytes")]
    Label(String),
    /// An empty target, one with a NUL, or one that fills a block.
    #[error("{path} is a symlink with a target of {len} bytes; ext4 holds 1 to 4095, no NUL")]
    Symlink {
        /// The link.
        path: String,
        /// Length of its target.
        len: usize,
    },
    /// More than 65 000 names for one file.
    #[error("{0} has more than 65000 hard links")]
    TooManyLinks(String),
    /// A file of 16 TiB or more.
    #[error("{path} has {size} bytes, more than a file in ext4 can have")]
    FileTooBig {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A folder with more than 512 MiB of names.
    #[error("a folder has too many entries")]
    FolderTooBig,
    /// More inodes than 32 bits can count.
    #[error("{0} files are more than ext4 can number")]
    TooManyFiles(usize),
    /// A device number that Linux does not have.
    #[error("{path} is device {major}:{minor}, beyond 4095:1048575")]
    Device {
        /// The device node.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Extended attributes that cannot be stored.
    #[error("{path}")]
    Xattr {
        /// The file.
        path: String,
        /// Why.
        source: XattrError,
    },
    /// The file system does not fit.
    #[error("the file system needs {needed} bytes and may have {limit}")]
    TooBig {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed, [`Options::max_bytes`].
        limit: u64,
    },
    /// The target refused.
    #[error("writing at byte {at} of the file system failed")]
    Write {
        /// Offset in the file system.
        at: u64,
        /// Why.
        source: io::Error,
    },
}

/// Writes `tree` as a sealed file system, as small as it can be, to `out` from byte 0.
///
/// `out` must read as zero where nothing is written (a new file, a hole). A time after
/// [`Options::clock`] becomes the clock; access, change and birth times are the modification time.
/// Of a [`Kind::Hardlink`] only the name counts. `/lost+found` (0700, root's) is added if missing.
///
/// # Errors
/// Every variant of [`Error`]. All but [`Error::Write`] come before the first byte is written.
pub fn write<W: WriteAt + ?Sized>(
    tree: &Tree,
    options: &Options,
    out: &W,
) -> Result<Summary, Error> {
    let shape = writer::Shape {
        sealed: true,
        blocks: 0,
        spare_inodes: 0,
    };
    writer::write(tree, options, shape, out)
}

/// Writes an empty, writable file system of `size` bytes (rounded down to blocks), with one inode
/// a 16 KiB and no journal: what stands in the image for state and `/cas` until the first boot
/// makes the real one. [`Options::label`] should be [`PRISTINE_LABEL`].
///
/// # Errors
/// [`Error::TooBig`] if `size` is over [`Options::max_bytes`] or too small for a file system
/// (64 KiB suffice), [`Error::Label`], [`Error::Write`].
pub fn write_pristine<W: WriteAt + ?Sized>(
    size: u64,
    options: &Options,
    out: &W,
) -> Result<Summary, Error> {
    let mut tree = Tree::new();
    let mut root = Node::new(Kind::Dir, 0o755, "pristine");
    root.mtime = options.clock;
    tree.insert("/", root)?;
    let shape = writer::Shape {
        sealed: false,
        blocks: size / BLOCK_SIZE,
        spare_inodes: u32::try_from(size >> 14).unwrap_or(u32::MAX / 2),
    };
    let limit = Options {
        max_bytes: options.max_bytes.min(size),
        ..options.clone()
    };
    writer::write(&tree, &limit, shape, out)
}
