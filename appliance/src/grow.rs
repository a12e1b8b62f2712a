//! `appliance grow`: takes into use what the disk of `/cas` has grown by, while it is mounted.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use disk::sysfs;
use disk::{Device, grow, mount};

use crate::cas;

/// Take into use what the disk of /cas has grown by, while it is mounted.
///
/// The same happens at every boot.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs `appliance grow`; prints what it did.
///
/// # Errors
///
/// `/cas` is not mounted, or something could not be grown.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let target = Path::new(cas::TARGET);
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let node = mount::source_of(&mountinfo, cas::TARGET)
        .ok_or_else(|| anyhow!("{} is not mounted", target.display()))?;
    let root = Path::new(sysfs::BLOCK);
    let name = sysfs::name_of(Path::new(&node))?;
    let (disk, _) = sysfs::disk_of(root, &name)
        .ok_or_else(|| anyhow!("{node} is not a partition of a disk"))?;
    rescan(root, &disk);
    let disk = sysfs::disks(root)
        .into_iter()
        .find(|found| found.name == disk)
        .ok_or_else(|| anyhow!("{disk} is no disk"))?;
    // While this is open and locked, udev leaves the table alone.
    let lock = Device::open(disk.node())?;
    lock.lock()?;
    cas::grow_partition(&disk).with_context(|| format!("{}", disk.node().display()))?;
    match grow::file_system(Path::new(&node), target)? {
        Some((old, new)) => {
            println!(
                "{}: grown from {} to {} MiB",
                target.display(),
                old >> 20,
                new >> 20
            );
        }
        None => println!("{} uses all of {}", target.display(), disk.node().display()),
    }
    Ok(())
}

/// Makes the kernel ask a SCSI disk for its size; others tell it by themselves.
fn rescan(root: &Path, disk: &str) {
    let path = root.join(disk).join("device/rescan");
    if path.exists()
        && let Err(error) = std::fs::write(&path, "1\n")
    {
        log::warn!("{}: {error}", path.display());
    }
}
