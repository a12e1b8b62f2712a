//! The file system of the machine.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, DiskFile, Flush, Room, Surroundings};

/// A folder of the machine.
#[derive(Debug)]
pub(crate) struct RealDisk {
    /// The folder that holds the volume's.
    around: PathBuf,
    root: PathBuf,
}

#[derive(Debug)]
struct RealFile(File);

impl RealDisk {
    /// The volume in `around`.
    pub(crate) fn new(around: &Path) -> Self {
        Self {
            around: around.into(),
            root: around.join(crate::FOLDER),
        }
    }

    fn open_with(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(self.root.join(path), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(opened.into())
    }
}

impl Disk for RealDisk {
    fn root(&self) -> &Path {
        &self.root
    }

    fn prepare(&self, folders: &[&str]) -> io::Result<()> {
        for folder in std::iter::once(&"").chain(folders) {
            match rustix::fs::mkdir(self.root.join(folder), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        File::open(&self.around)?.sync_all()?;
        File::open(&self.root)?.sync_all()
    }

    fn surroundings(&self) -> io::Result<Surroundings> {
        let mut found = Surroundings::Empty;
        for entry in std::fs::read_dir(&self.around)? {
            let name = entry?.file_name();
            if name == crate::FOLDER {
                return Ok(Surroundings::Ours);
            }
            // What Larder itself puts on a fresh file system is nobody else's.
            if name != "lost+found" && name != ".larder" {
                found = Surroundings::Foreign;
            }
        }
        Ok(found)
    }

    fn lock(&self, path: &str) -> io::Result<Arc<dyn Debug + Send + Sync>> {
        // A volume that can only be read can still be locked.
        let file = match self.open_with(path, OFlags::RDWR | OFlags::CREATE) {
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                self.open_with(path, OFlags::RDONLY)?
            }
            opened => opened?,
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = match self.open_with(path, OFlags::RDWR) {
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                self.open_with(path, OFlags::RDONLY)?
            }
            opened => opened?,
        };
        if path.starts_with("segments/") {
            // The default read-ahead of some disks is 8 MiB for a record of 8 KiB.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn open_ready(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.root.join(path);
        // Linux 5.12: EAGAIN unless all of the path is in memory.
        let cached = ResolveFlags::CACHED;
        let opened = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), cached)?;
        Ok(Arc::new(RealFile(opened.into())))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        if path.starts_with("segments/") {
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn nameless(&self, folder: &str) -> io::Result<Arc<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.root.join(folder), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Arc::new(RealFile(file.into())))
    }

    fn link(&self, file: &dyn DiskFile, path: &str) -> io::Result<()> {
        let file: Option<&RealFile> = file.as_any().downcast_ref();
        let fd = file.ok_or(ErrorKind::Unsupported)?.0.as_fd();
        // linkat with AT_EMPTY_PATH needs a capability; this way does not (open(2), O_TMPFILE).
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let to = self.root.join(path);
        rustix::fs::linkat(
            rustix::fs::CWD,
            name,
            rustix::fs::CWD,
            to,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(path))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        std::fs::read_dir(self.root.join(folder))?
            .map(|entry| {
                let name = entry?.file_name();
                Ok(name.to_string_lossy().into_owned())
            })
            .collect()
    }

    fn sync_folder(&self, folder: &str, _: Flush) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }

    fn room(&self) -> io::Result<Room> {
        let room = rustix::fs::statvfs(&self.around)?;
        Ok(Room {
            total: room.f_blocks.saturating_mul(room.f_frsize),
            free: room.f_bavail.saturating_mul(room.f_frsize),
            // Some file systems have no fixed number of files, and say 0 of 0.
            files: if room.f_files == 0 {
                u64::MAX
            } else {
                room.f_favail
            },
        })
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn read_ready(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = buffer.len();
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.0, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == length => Ok(read),
            // Part of it is in memory, or the file ends here; reading for good will tell.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP) => Err(ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self, _: Flush) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, length) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Then a full disk is noticed later, as an error of a write.
                Err(Errno::OPNOTSUPP) => return self.0.set_len(offset + length),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
