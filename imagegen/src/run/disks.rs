//! The disks of a machine that `run` boots.

use std::path::Path;

use anyhow::{Context, Result, bail};
use vm::{Bus, Disk, sparse_copy};

/// A second disk, blank, that a host's entry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondDisk {
    /// Path in the guest, as the entry has it.
    pub device: String,
    /// Bus on which a disk gets that path, if it is second there.
    pub bus: Bus,
    /// Serial number, where the path names it.
    pub serial: Option<String>,
}

/// Size of a blank second disk.
const SECOND_SIZE: u64 = 8 << 30;

/// The second disk of `host` as its entry below `configs` names it; none for one-disk hosts.
///
/// # Errors
/// No such host, or a configuration that is not understood.
pub fn second_disk(configs: &Path, host: &str) -> Result<Option<SecondDisk>> {
    let entry = crate::fleet::host(configs, host)?;
    entry.disks.cas.as_deref().map(imitate).transpose()
}

/// On which bus, with which serial number, a second disk gets the path `device`.
fn imitate(device: &str) -> Result<SecondDisk> {
    let found = |bus, serial: Option<&str>| {
        Ok(SecondDisk {
            device: device.to_owned(),
            bus,
            serial: serial.map(str::to_owned),
        })
    };
    match device {
        "/dev/sdb" => return found(Bus::VirtioScsi, None),
        "/dev/vdb" => return found(Bus::VirtioBlk, None),
        "/dev/nvme1n1" => return found(Bus::Nvme, None),
        _ => {}
    }
    let by_id = [
        ("/dev/disk/by-id/virtio-", Bus::VirtioBlk),
        ("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_", Bus::VirtioScsi),
        ("/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_", Bus::Nvme),
        ("/dev/disk/by-id/ata-QEMU_HARDDISK_", Bus::Ahci),
    ];
    for (prefix, bus) in by_id {
        if let Some(serial) = device.strip_prefix(prefix) {
            return found(bus, Some(serial));
        }
    }
    bail!(
        "no disk of QEMU's has the path {device}; QEMU can imitate /dev/sdb, /dev/vdb, \
         /dev/nvme1n1 and their names below /dev/disk/by-id"
    )
}

/// The machine's disks in order. With `keep` they are files below `folder`, made at the first
/// time; without, the image itself below a throw-away overlay.
pub(crate) fn attach(
    image: &Path,
    size: u64,
    second: Option<&SecondDisk>,
    keep: bool,
    folder: &Path,
) -> Result<Vec<Disk>> {
    // Both on one bus: only so is the second disk the second one there.
    let bus = second.map_or(Bus::VirtioBlk, |second| second.bus);
    let first = if keep {
        let disk = folder.join("disk.raw");
        if !disk.exists() {
            sparse_copy(image, &disk)?;
        }
        enlarge(&disk, size)?;
        Disk::file(disk)
    } else {
        Disk::file(image).snapshot().grow_to(size)
    };
    let mut disks = vec![first.on(bus)];
    if let Some(second) = second {
        // Two files: what a kept run has on its disk is neither seen nor lost by another.
        let disk = if keep {
            blank(&folder.join("cas.raw"))?
        } else {
            blank(&folder.join("cas-blank.raw"))?.snapshot()
        };
        let disk = disk.on(second.bus);
        disks.push(match &second.serial {
            Some(serial) => disk.serial(serial),
            None => disk,
        });
    }
    Ok(disks)
}

/// A blank disk at `path`, made if it does not exist.
fn blank(path: &Path) -> Result<Disk> {
    if !path.exists() {
        let file = std::fs::File::create(path);
        file.and_then(|file| file.set_len(SECOND_SIZE))
            .with_context(|| format!("cannot create the disk {}", path.display()))?;
    }
    Ok(Disk::file(path))
}

/// Makes the file at least `size` bytes long; never shorter.
fn enlarge(path: &Path, size: u64) -> Result<()> {
    let enlarge = || {
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() < size {
            file.set_len(size)?;
        }
        Ok::<_, std::io::Error>(())
    };
    enlarge().with_context(|| format!("cannot enlarge {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_qemu_can_imitate() {
        let second = imitate("/dev/sdb").unwrap();
        assert_eq!((second.bus, second.serial), (Bus::VirtioScsi, None));
        let second = imitate("/dev/disk/by-id/virtio-CAS1").unwrap();
        assert_eq!(
            (second.bus, second.serial.as_deref()),
            (Bus::VirtioBlk, Some("CAS1"))
        );
        let error = imitate("/dev/disk/by-id/wwn-0x5000")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("wwn-0x5000") && error.contains("/dev/sdb"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_host_is_told_the_known_ones() {
        let configs = tempfile::tempdir().unwrap();
        let error = second_disk(configs.path(), "dev").unwrap_err().to_string();
        assert!(
            error.contains("fleet.toml") && error.contains("--configs"),
            "{error}"
        );
        let fleet = "domain = 'example.org'\n\
            [hosts.one]\nenvironment = 'production'\nregion = 'eu'\n\
            [hosts.two]\nenvironment = 'production'\nregion = 'eu'\ndisks.cas = '/dev/sdb'\n";
        std::fs::write(configs.path().join("fleet.toml"), fleet).unwrap();
        assert_eq!(second_disk(configs.path(), "one").unwrap(), None);
        let second = second_disk(configs.path(), "two").unwrap().unwrap();
        assert_eq!(second.device, "/dev/sdb");
        let error = second_disk(configs.path(), "three")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no host `three`; it has one, two"),
            "{error}"
        );
    }

    #[test]
    fn kept_disks_are_copies_and_grow_only() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("larder.raw");
        std::fs::write(&image, vec![1; 8192]).unwrap();
        let second = imitate("/dev/sdb").unwrap();
        let disks = attach(&image, 1 << 20, Some(&second), true, folder.path()).unwrap();
        assert!(
            disks
                .iter()
                .all(|disk| !disk.snapshot && disk.bus == Bus::VirtioScsi)
        );
        let kept = folder.path().join("disk.raw");
        assert_eq!(std::fs::metadata(&kept).unwrap().len(), 1 << 20);
        std::fs::write(&kept, vec![2; 2 << 20]).unwrap();
        attach(&image, 1 << 20, Some(&second), true, folder.path()).unwrap();
        assert_eq!(std::fs::read(&kept).unwrap(), vec![2; 2 << 20]);
        assert_eq!(std::fs::read(&image).unwrap(), vec![1; 8192]);
        let disks = attach(&image, 1 << 20, Some(&second), false, folder.path()).unwrap();
        assert!(disks.iter().all(|disk| disk.snapshot));
        assert!(
            disks
                .iter()
                .all(|disk| !format!("{:?}", disk.source).contains("cas.raw"))
        );
    }
}
