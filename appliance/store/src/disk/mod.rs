//! What the store asks of a file system, as a trait, so that tests can put one in its place that
//! loses power, lies and fills up. Paths are relative to the folder of the volume.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

mod real;
#[cfg(test)]
pub(crate) mod sim;

pub(crate) use real::RealDisk;

/// What a flush is for. Real disks do not care; tests leave one out and show that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flush {
    /// The name of a new segment.
    SegmentName,
    /// Records.
    Records,
    /// Records that were copied out of a segment that goes.
    Survivors,
    /// A footer.
    Footer,
    /// That a segment's name is gone, before the next one goes.
    Gone,
    /// The body of a large object.
    Body,
    /// The name of a large object.
    BodyName,
    /// A clean.
    Clean,
    /// A checkpoint.
    Checkpoint,
    /// The superblock, or another file that replaces one, and its name.
    Superblock,
}

/// Room on a disk, in bytes, and in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// All of it.
    pub(crate) total: u64,
    /// What an unprivileged process may still use.
    pub(crate) free: u64,
    /// Files that can still be made.
    pub(crate) files: u64,
}

/// A file system.
pub(crate) trait Disk: Send + Sync + Debug {
    /// The folder in words, for messages.
    fn root(&self) -> &Path;
    /// Makes the folder of the volume and those below it, if they are not there, and syncs them.
    fn prepare(&self, folders: &[&str]) -> io::Result<()>;
    /// Whether the folder that holds the volume's is there, and what else is in it.
    fn surroundings(&self) -> io::Result<Surroundings>;
    /// Takes the lock that other processes respect; it lasts as long as what is returned.
    fn lock(&self, path: &str) -> io::Result<Arc<dyn Debug + Send + Sync>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file if that needs nothing from the disk; else [`io::ErrorKind::WouldBlock`].
    fn open_ready(&self, _path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Makes a file that is not there yet.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a file without a name in a folder; it goes when it is closed unless [`Disk::link`] names it.
    fn nameless(&self, folder: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a nameless file a name that is not taken.
    fn link(&self, file: &dyn DiskFile, path: &str) -> io::Result<()>;
    /// Renames a file, replacing what has the name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn unlink(&self, path: &str) -> io::Result<()>;
    /// The names in a folder; "" is the volume's own.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &str, why: Flush) -> io::Result<()>;
    /// Room on the disk.
    fn room(&self) -> io::Result<Room>;
}

/// What is around the volume's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// The volume's folder is there.
    Ours,
    /// It is not, and nothing else is.
    Empty,
    /// It is not, but other things are.
    Foreign,
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Reads until `buffer` is full or the file ends; the number of bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`DiskFile::read_at`], but only what is in memory: fails with `WouldBlock` otherwise.
    fn read_ready(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes data and length durable. One that failed must not be tried again.
    fn sync(&self, why: Flush) -> io::Result<()>;
    /// Forgets what is in memory and is not waiting to be written: what is read next comes from the
    /// disk. After an fsync that failed, memory and disk differ, and nothing else tells.
    fn forget(&self) -> io::Result<()>;
    /// Allocates room, keeps what is there, and makes the file at least this long.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// For [`Disk::link`].
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Reads exactly `length` bytes.
pub(crate) fn read_exact(file: &dyn DiskFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    match file.read_at(&mut bytes, offset)? {
        read if read == length => Ok(bytes),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Replaces a file: the new one is durable before it takes the name, and the name after.
pub(crate) fn replace(disk: &dyn Disk, path: &str, bytes: &[u8], why: Flush) -> io::Result<()> {
    let new = format!("{path}.new");
    match disk.unlink(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&new)?;
    file.write_at(bytes, 0)?;
    file.sync(why)?;
    disk.rename(&new, path)?;
    disk.sync_folder("", why)
}
