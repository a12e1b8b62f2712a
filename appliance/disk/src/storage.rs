//! Something with sectors: a disk, a partition, or a plain file that stands for one.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// Reads at byte offsets.
pub trait ReadAt {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Size of a logical sector in bytes, 512 or 4096.
    fn sector_size(&self) -> u32;
    /// Fills `buffer` from `offset` (bytes); reading beyond the end is an error.
    ///
    /// # Errors
    ///
    /// The device failed, or the range is not on it.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error>;

    /// `length` bytes from `offset` (both in bytes).
    ///
    /// # Errors
    ///
    /// As [`ReadAt::read_at`].
    fn read_vec(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; length];
        self.read_at(offset, &mut buffer)?;
        Ok(buffer)
    }
}

/// Writes at byte offsets. Writes may reach the medium in any order until the next flush.
pub trait Storage: ReadAt {
    /// Writes `data` at `offset` (bytes).
    ///
    /// # Errors
    ///
    /// The device failed, or the range is not on it.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Error>;
    /// Everything written so far is on the medium when this returns.
    ///
    /// # Errors
    ///
    /// The device failed; what was written since the last flush may be lost, and a second flush
    /// that succeeds says nothing about it.
    fn flush(&mut self) -> Result<(), Error>;
}

/// A block device or a plain file.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    size: u64,
    sector_size: u32,
}

impl Device {
    /// Opens a device for reading.
    ///
    /// # Errors
    ///
    /// It cannot be opened or has no size.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::with(path.as_ref(), OpenOptions::new().read(true))
    }

    /// Opens a device for reading and writing.
    ///
    /// # Errors
    ///
    /// It cannot be opened or has no size.
    pub fn open_rw(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::with(path.as_ref(), OpenOptions::new().read(true).write(true))
    }

    /// Opens a device for reading and writing, and only if nobody has mounted it, holds it, or
    /// holds a partition of it.
    ///
    /// # Errors
    ///
    /// It cannot be opened (`EBUSY`: somebody else uses it) or has no size.
    pub fn open_exclusive(path: impl AsRef<Path>) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        // Without O_CREAT, O_EXCL has this meaning for block devices and none for plain files.
        options.custom_flags(libc::O_EXCL);
        Self::with(path.as_ref(), &options)
    }

    fn with(path: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let mut file = options.open(path).map_err(Error::path(path, "open"))?;
        let kind = file
            .metadata()
            .map_err(Error::path(path, "look at"))?
            .file_type();
        let size = file
            .seek(SeekFrom::End(0))
            .map_err(Error::path(path, "find the size"))?;
        let sector_size = if kind.is_block_device() {
            rustix::fs::ioctl_blksszget(&file)
                .map_err(|error| Error::path(path, "find the sector size")(error.into()))?
        } else {
            512
        };
        Ok(Self {
            file,
            path: path.into(),
            size,
            sector_size,
        })
    }

    /// The same device, taken as one with sectors of `bytes` (for plain files).
    #[must_use]
    pub fn with_sector_size(mut self, bytes: u32) -> Self {
        self.sector_size = bytes;
        self
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for ioctls.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Locks the whole device as udev respects it: while the lock is held, udev neither reads nor
    /// re-reads the partition table. The lock goes with the device.
    ///
    /// # Errors
    ///
    /// The lock could not be had.
    pub fn lock(&self) -> Result<(), Error> {
        rustix::fs::flock(&self.file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| Error::path(&self.path, "lock")(error.into()))
    }
}

impl ReadAt for Device {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|cause| Error::Transfer {
                action: "read",
                offset,
                length: buffer.len() as u64,
                cause,
            })
    }
}

impl Storage for Device {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let length = data.len() as u64;
        let error = |cause| Error::Transfer {
            action: "write",
            offset,
            length,
            cause,
        };
        // A plain file would grow.
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(error(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.file.write_all_at(data, offset).map_err(error)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|cause| Error::Transfer {
            action: "flush",
            offset: 0,
            length: self.size,
            cause,
        })
    }
}

/// A byte slice is a disk with sectors of 512 bytes (for parsers and their tests).
impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn sector_size(&self) -> u32 {
        512
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        let Some(range) = range else {
            return Err(Error::Transfer {
                action: "read",
                offset,
                length: buffer.len() as u64,
                cause: std::io::ErrorKind::UnexpectedEof.into(),
            });
        };
        buffer.copy_from_slice(range);
        Ok(())
    }
}
