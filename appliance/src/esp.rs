//! `appliance mount esp`: checks the ESP and mounts it at `/boot`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use disk::fsck::{self, Verdict};
use disk::mount;
use disk::settings::{self, Settings};
use slots::BootReport;

use crate::announce::announce;
use crate::wait::until;

/// Where it is mounted.
pub(crate) const TARGET: &str = "/boot";
/// How long the device may take to appear.
const DEVICE: Duration = Duration::from_secs(20);
/// How long fsck.fat may take.
const FSCK: Duration = Duration::from_secs(30);

/// Check the EFI system partition of the disk that booted and mount it at /boot.
///
/// One that cannot be repaired is mounted read-only, and every console says so.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs `appliance mount esp`.
///
/// # Errors
///
/// The ESP is not mounted at all. One that can only be read is announced, and is no error.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    if mount::is_mounted(TARGET)? {
        log::info!("{TARGET} is mounted already");
        return Ok(());
    }
    mount_esp().inspect_err(|error| announce(&format!("the ESP is not mounted: {error:#}")))
}

fn mount_esp() -> Result<()> {
    let report = BootReport::read(Path::new(slots::REPORT_PATH))?;
    let node = report
        .esp
        .ok_or_else(|| anyhow!("the boot disk {} has no ESP", report.disk))?;
    let path = Path::new(&node);
    until(DEVICE, Duration::from_millis(100), || {
        if path.exists() {
            Ok(())
        } else {
            Err(anyhow!("{node} is not there"))
        }
    })?;
    let options = Settings::load(Path::new(settings::PATH))
        .mount("esp")
        .to_owned();
    let target = Path::new(TARGET);
    let writable = check(path).and_then(|()| {
        mount::mount(&node, target, "vfat", &options).map_err(|error| error.to_string())
    });
    if let Err(reason) = writable {
        mount::mount(&node, target, "vfat", &format!("ro,{options}"))?;
        announce(&format!(
            "{reason}; {TARGET} is read-only: this image cannot be blessed and takes no update"
        ));
    } else {
        log::info!("{node} is mounted at {TARGET}");
    }
    Ok(())
}

/// Checks and repairs; the error says why it must not be written to.
fn check(node: &Path) -> Result<(), String> {
    match fsck::fat(node, FSCK, &mut |line| log::info!("{line}")) {
        Ok(Verdict::Clean) => Ok(()),
        Ok(Verdict::Repaired(what)) => {
            log::info!("{}: repaired: {what}", node.display());
            Ok(())
        }
        Ok(Verdict::Damaged(what)) => Err(format!("{} is damaged: {what}", node.display())),
        Err(error @ disk::Error::Start { .. }) => {
            log::warn!("{error}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
