//! What is written to: a disk, or a plain file that stands for one.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;

use formats::region::{ReadAt, WriteAt};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::Errno;

/// Writes may reach the medium in any order until the next flush.
pub(super) trait Target: ReadAt + WriteAt {
    /// The range reads as zero from now on; both ends are multiples of the sector size.
    fn clear(&self, range: Range<u64>) -> io::Result<()>;
    /// Everything so far is on the medium when this returns.
    fn flush(&self) -> io::Result<()>;
    /// What is read from now on comes from the medium, as far as the kernel can be told so.
    fn forget(&self) -> io::Result<()>;
    /// Makes the kernel look at the partition table anew.
    fn reread(&self);
}

/// A real one.
pub(super) struct Medium(pub(super) disk::Device);

/// Zeros that are written where nothing else clears.
const ZEROS: usize = 1 << 20;

impl Medium {
    fn inside(&self, start: u64, length: u64) -> io::Result<()> {
        let size = disk::ReadAt::size(&self.0);
        // A plain file would grow.
        match start.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{length} bytes at {start} are not on a disk of {size} bytes"),
            )),
        }
    }
}

impl ReadAt for Medium {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_exact_at(self.0.file(), buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(disk::ReadAt::size(&self.0))
    }
}

impl WriteAt for Medium {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.inside(offset, buf.len() as u64)?;
        WriteAt::write_all_at(self.0.file(), buf, offset)
    }
}

impl Target for Medium {
    fn clear(&self, range: Range<u64>) -> io::Result<()> {
        let (start, length) = (range.start, range.end.saturating_sub(range.start));
        if length == 0 {
            return Ok(());
        }
        self.inside(start, length)?;
        // A hole in a file; on a disk an "unmap" that reads as zero afterwards, or zeros that the
        // kernel (or the disk itself) writes.
        for how in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
            let flags = how | FallocateFlags::KEEP_SIZE;
            match fallocate(self.0.file(), flags, start, length) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let zeros = vec![0; ZEROS];
        let mut at = start;
        while at < range.end {
            let room = zeros.len().min((range.end - at) as usize);
            WriteAt::write_all_at(self.0.file(), &zeros[..room], at)?;
            at += room as u64;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.0.file().sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        // Only pages that are on the medium can be dropped.
        self.flush()?;
        fadvise(self.0.file(), 0, None, Advice::DontNeed)?;
        Ok(())
    }

    fn reread(&self) {
        let kind = self.0.file().metadata().map(|found| found.file_type());
        if kind.is_ok_and(|kind| kind.is_block_device()) {
            // Loop devices without partitions refuse; the next start reads it in any case.
            let _ = disk::grow::reread_table(&self.0);
        }
    }
}
