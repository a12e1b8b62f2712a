//! Copies of disk images that take no more room than their data.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::{Error, Result};

/// Copies a disk image: shares its blocks where the file system can, else copies its data and
/// leaves its holes. `to` must not exist; it is removed again if anything fails.
///
/// # Errors
/// [`Error::File`] with the path at fault.
pub fn sparse_copy(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).map_err(Error::file("read", from))?;
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(to)
        .map_err(Error::file("create", to))?;
    copy(&source, &target).map_err(|error| {
        // The copy's own error is the one to tell.
        let _ = std::fs::remove_file(to);
        Error::File {
            what: "copy the disk image to",
            path: to.to_owned(),
            source: error,
        }
    })
}

fn copy(source: &File, target: &File) -> io::Result<()> {
    if ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let size = source.metadata()?.len();
    target.set_len(size)?;
    for_each_extent(source, |mut at, end| {
        let mut buffer = vec![0; 1 << 20];
        while at < end {
            let room = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = source.read_at(&mut buffer[..room], at)?;
            if read == 0 {
                // The image shrank meanwhile.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            target.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
        Ok(())
    })
}

/// Calls `extent(start, end)` for each part of `file` that holds data, in order. A file system
/// that knows no holes has one such part.
///
/// # Errors
/// Those of `extent`, and of lseek(2).
pub fn for_each_extent(
    file: &File,
    mut extent: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data behind `at`.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        extent(start, end)?;
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn data_and_holes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(&[7; 70_000], (8 << 20) + 5).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        sparse_copy(&from, &to).unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        assert!(
            std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20,
            "holes were filled"
        );
        let error = sparse_copy(&from, &to).unwrap_err().to_string();
        assert!(
            error.contains("cannot create"),
            "an existing disk was overwritten: {error}"
        );
    }

    #[test]
    fn empty_and_all_hole() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1 << 20] {
            let (from, to) = (
                folder.path().join("from"),
                folder.path().join(format!("{size}")),
            );
            File::create(&from).unwrap().set_len(size).unwrap();
            sparse_copy(&from, &to).unwrap();
            assert_eq!(std::fs::metadata(&to).unwrap().len(), size);
        }
    }
}
