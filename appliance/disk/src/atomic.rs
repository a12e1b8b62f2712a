//! Replacing small files so that a power cut leaves the old one or the new one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Replaces the file at `path`: temporary file, fsync, rename, fsync of the folder. After a power
/// cut the file is the old one or the new one.
///
/// # Errors
///
/// It could not be written; the old file is still there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // A power cut may have left one behind, with another mode.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::path(temporary, "remove")(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(Error::path(&temporary, "create"))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(Error::path(&temporary, "write"))?;
    std::fs::rename(&temporary, path).map_err(Error::path(path, "replace"))?;
    if let Some(folder) = path.parent() {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::path(folder, "flush"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_with_the_mode_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(folder.path().join("file.new"), "from a power cut").unwrap();
        super::write(&path, b"one", 0o600).unwrap();
        super::write(&path, b"two", 0o444).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o444
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = super::write(&folder.path().join("no/file"), b"x", 0o600).unwrap_err();
        assert!(error.to_string().contains("no/file.new"), "{error}");
    }
}
