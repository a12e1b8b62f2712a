//! Disks and partitions as the kernel lists them in sysfs; needs no udev.

use std::path::{Path, PathBuf};

use crate::Error;

/// Where the kernel lists block devices.
pub const BLOCK: &str = "/sys/class/block";

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, `vda`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Size of a logical sector in bytes.
    pub sector_size: u32,
}

impl Disk {
    /// Its device node, `/dev/vda`.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// Names of devices that are whole but no disks: they are made of something else, or of nothing.
const NO_DISKS: &[&str] = &[
    "loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock",
];

/// All disks that have a medium, by name. `root` is [`BLOCK`] but for tests.
#[must_use]
pub fn disks(root: &Path) -> Vec<Disk> {
    let mut found: Vec<Disk> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let folder = root.join(&name);
            if NO_DISKS.iter().any(|prefix| name.starts_with(prefix))
                || folder.join("partition").exists()
            {
                return None;
            }
            // sysfs counts in 512 bytes whatever the sectors are.
            let size = number(&folder.join("size"))?.checked_mul(512)?;
            let sector_size = number(&folder.join("queue/logical_block_size"))?;
            (size > 0).then_some(Disk {
                name,
                size,
                sector_size: u32::try_from(sector_size).ok()?,
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Kernel name of partition `number` of `disk`, if the kernel has it with this start (in sectors of
/// `disk`).
#[must_use]
pub fn partition_name(root: &Path, disk: &Disk, number_: u32, first: u64) -> Option<String> {
    let scale = u64::from(disk.sector_size) / 512;
    std::fs::read_dir(root.join(&disk.name))
        .ok()?
        .flatten()
        .find_map(|entry| {
            let folder = entry.path();
            let matches = number(&folder.join("partition"))? == u64::from(number_)
                && number(&folder.join("start"))? == first * scale;
            matches.then(|| entry.file_name().into_string().ok())?
        })
}

/// The disk that a partition is on, and its number there. `name` is a kernel name, `vda8`.
#[must_use]
pub fn disk_of(root: &Path, name: &str) -> Option<(String, u32)> {
    let number = u32::try_from(number(&root.join(name).join("partition"))?).ok()?;
    // The folder of a partition is inside the folder of its disk.
    let path = std::fs::canonicalize(root.join(name)).ok()?;
    let disk = path.parent()?.file_name()?.to_str()?.to_owned();
    Some((disk, number))
}

/// Kernel name of a device node; links (`/dev/disk/by-id/...`) are followed.
///
/// # Errors
///
/// There is no such node.
pub fn name_of(node: &Path) -> Result<String, Error> {
    let path = std::fs::canonicalize(node).map_err(Error::path(node, "find"))?;
    Ok(path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned())
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sysfs as the kernel lays it out: links in `class/block`, partitions inside their disk.
    fn fake(folder: &Path) -> PathBuf {
        let block = folder.join("class/block");
        std::fs::create_dir_all(&block).unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.join("devices").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        };
        for (disk, sectors, bytes) in [
            ("sdb", "4096", "4096"),
            ("sda", "2048", "512"),
            ("loop0", "8", "512"),
            ("sr0", "0", "2048"),
        ] {
            put(&format!("{disk}/size"), sectors);
            put(&format!("{disk}/queue/logical_block_size"), bytes);
        }
        put("sdb/sdb1/partition", "1");
        put("sdb/sdb1/start", "2048");
        put("sdb/sdb1/size", "8");
        for (name, target) in [
            ("sda", "sda"),
            ("sdb", "sdb"),
            ("sdb1", "sdb/sdb1"),
            ("loop0", "loop0"),
            ("sr0", "sr0"),
        ] {
            let target = folder.join("devices").join(target);
            std::os::unix::fs::symlink(target, block.join(name)).unwrap();
        }
        block
    }

    #[test]
    fn lists_disks_and_finds_partitions() {
        let folder = tempfile::tempdir().unwrap();
        let root = fake(folder.path());
        let found = disks(&root);
        assert_eq!(
            found,
            [
                Disk {
                    name: "sda".into(),
                    size: 1 << 20,
                    sector_size: 512
                },
                Disk {
                    name: "sdb".into(),
                    size: 2 << 20,
                    sector_size: 4096
                },
            ]
        );
        assert_eq!(found[1].node(), Path::new("/dev/sdb"));
        // 2048 in units of 512 bytes is sector 256 of 4096 bytes.
        assert_eq!(
            partition_name(&root, &found[1], 1, 256).as_deref(),
            Some("sdb1")
        );
        assert_eq!(partition_name(&root, &found[1], 1, 2048), None);
        assert_eq!(partition_name(&root, &found[1], 2, 256), None);
        assert_eq!(disk_of(&root, "sdb1"), Some(("sdb".into(), 1)));
        assert_eq!(disk_of(&root, "sdb"), None);
    }

    #[test]
    fn without_sysfs_there_are_no_disks() {
        assert!(disks(Path::new("/nonexistent")).is_empty());
    }
}
