//! Blessing: the booted image loses the counter in its name.

use std::path::{Component, Path, PathBuf};

use crate::{Entry, Error};

/// What [`bless`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blessing {
    /// The image has its final name now.
    Renamed {
        /// Name before.
        from: String,
        /// Name now.
        to: String,
    },
    /// It had its final name already.
    Already,
}

/// Blesses the image that the boot loader says it started: `path` is the value of
/// `LoaderBootCountPath`, `\EFI\Linux\larder_1.2+2-1.efi`, `esp` the folder where the ESP is
/// mounted. Durable when this returns, as far as FAT can promise.
///
/// # Errors
///
/// The path makes no sense, the image is gone, or the ESP could not be written.
pub fn bless(esp: &Path, path: &str) -> Result<Blessing, Error> {
    let nonsense = |reason: &str| Error::Content {
        path: path.into(),
        reason: reason.to_owned(),
    };
    let relative = PathBuf::from(path.replace('\\', "/").trim_start_matches('/'));
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_)))
    {
        return Err(nonsense("it is no path on the ESP"));
    }
    let counted = esp.join(&relative);
    let (Some(folder), Some(name)) = (counted.parent(), relative.file_name()) else {
        return Err(nonsense("it is no path on the ESP"));
    };
    let from = name.to_string_lossy().into_owned();
    let entry = Entry::parse(&from).ok_or_else(|| nonsense("it is no boot image"))?;
    if entry.left.is_none() {
        return Ok(Blessing::Already);
    }
    let to = entry.id();
    let blessed = folder.join(&to);
    if !counted.exists() && blessed.exists() {
        return Ok(Blessing::Already);
    }
    std::fs::rename(&counted, &blessed).map_err(Error::path(&counted, "rename"))?;
    // The file before its folder: FAT makes the new name without the file's clusters and fills them
    // in with the inode. A folder that gets to the disk first names an empty file, and the old name
    // is gone.
    std::fs::File::open(&blessed)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::File::open(folder))
        .and_then(|folder| {
            folder.sync_all()?;
            Ok(rustix::fs::syncfs(&folder)?)
        })
        .map_err(Error::path(folder, "flush"))?;
    Ok(Blessing::Renamed { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_once() {
        let esp = tempfile::tempdir().unwrap();
        let folder = esp.path().join("EFI/Linux");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("larder_1+2-1.efi"), "image").unwrap();
        let path = r"\EFI\Linux\larder_1+2-1.efi";
        assert_eq!(
            bless(esp.path(), path).unwrap(),
            Blessing::Renamed {
                from: "larder_1+2-1.efi".into(),
                to: "larder_1.efi".into()
            }
        );
        assert_eq!(
            std::fs::read(folder.join("larder_1.efi")).unwrap(),
            b"image"
        );
        assert_eq!(bless(esp.path(), path).unwrap(), Blessing::Already);
        assert_eq!(
            bless(esp.path(), r"\EFI\Linux\larder_1.efi").unwrap(),
            Blessing::Already
        );
    }

    #[test]
    fn what_is_not_there_or_outside_is_an_error() {
        let esp = tempfile::tempdir().unwrap();
        let message = |path: &str| bless(esp.path(), path).unwrap_err().to_string();
        assert!(message(r"\EFI\Linux\larder_1+2-1.efi").contains("cannot rename"));
        assert!(message(r"\..\x+1.efi").contains("no path on the ESP"));
        assert!(message("").contains("no path on the ESP"));
        assert!(message(r"\EFI\Linux\vmlinuz").contains("no boot image"));
    }
}
