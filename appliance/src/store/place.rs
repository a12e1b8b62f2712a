//! PATH of `appliance store`: a folder, or a file system in an image file, a disk or a partition.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use disk::gpt::Table;
use disk::{Device, ReadAt};

/// mount and umount have this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a volume in it; if it was mounted for that, it is unmounted at the end.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    /// Whether the folder was made here, and whether something is mounted on it.
    made: bool,
    mounted: bool,
}

impl Place {
    /// Makes `path` a folder. What is no folder is mounted (which takes root), read-only unless
    /// `write`; of a disk or image with a partition table its partition `cas`.
    pub(super) fn open(path: &Path, write: bool) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self {
                folder: path.into(),
                made: false,
                mounted: false,
            });
        }
        let options = options(path, write)?;
        let folder = PathBuf::from(format!("/run/larder-store-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // From here on the folder goes again.
        let mut place = Self {
            folder,
            made: true,
            mounted: false,
        };
        let arguments = [
            "-t".into(),
            "ext4".into(),
            "-o".into(),
            options,
            path.display().to_string(),
            place.folder.display().to_string(),
        ];
        disk::command::run_ok("mount", &arguments, &[], PATIENCE)
            .with_context(|| format!("{}: cannot be mounted; only root may", path.display()))?;
        place.mounted = true;
        Ok(place)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// How to mount it.
fn options(path: &Path, write: bool) -> Result<String> {
    // A journal that was not replayed is left as it is: nothing is written.
    let mut options = String::from(if write { "loop" } else { "loop,ro,noload" });
    let mut device = Device::open(path).with_context(|| path.display().to_string())?;
    let sector = u64::from(device.sector_size());
    match Table::read(&mut device) {
        // The file system itself.
        Err(disk::Error::NoTable { .. }) => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
        Ok(table) => {
            let Some(partition) = table.by_name(disk::CAS_PARTITION) else {
                bail!(
                    "{}: no partition is called {}, only {}",
                    path.display(),
                    disk::CAS_PARTITION,
                    table.names()
                );
            };
            let (offset, length) = (partition.first * sector, partition.sectors() * sector);
            options += &format!(",offset={offset},sizelimit={length}");
        }
    }
    Ok(options)
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        if self.mounted {
            let folder = self.folder.display().to_string();
            if let Err(error) = disk::command::run_ok("umount", &[folder], &[], PATIENCE) {
                log::error!("{}: is still mounted: {error}", self.folder.display());
                return;
            }
        }
        // Not ours if it is not empty.
        let _ = std::fs::remove_dir(&self.folder);
    }
}
