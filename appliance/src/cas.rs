//! `appliance mount cas`: finds, makes, checks, grows and mounts `/cas`.
//!
//! Where it is, the machine's entry says: partition `cas` of the boot disk, or the second disk that
//! the entry names and nothing else. What is foreign, damaged, dead or missing is named on every
//! console and left alone; the machine goes on without `/cas`, and nothing waits for it.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use disk::fsck::Verdict;
use disk::gpt::{Partition, Table};
use disk::marker::{self, Marker};
use disk::probe::Content;
use disk::settings::{self, Settings};
use disk::sysfs::{self, Disk};
use disk::{CAS_PARTITION, Device, LABEL_CAS, blank, fsck, grow, mkfs, mount, probe};
use serde::{Deserialize, Serialize};
use slots::BootReport;

use crate::announce::announce;
use crate::wait::until;

/// Where it is mounted.
pub(crate) const TARGET: &str = "/cas";
/// What came out, for `appliance console` and whoever wants to know.
const STATUS: &str = "/run/larder/cas.json";
/// Written by `appliance identity`.
const IDENTITY: &str = "/run/larder/identity.json";
/// How long a device may take to appear.
const DEVICE: Duration = Duration::from_secs(20);
/// How long e2fsck may take: a full check of a large disk takes minutes, and nothing waits for it.
const FSCK: Duration = Duration::from_secs(600);
/// User and group `cache`, for ever.
const CACHE: u32 = 990;

/// Find, make, check, grow and mount /cas.
///
/// It is partition "cas" of the disk that booted, or the second disk that the machine's entry names
/// and nothing else. A pristine file system is made at its real size, a blank second disk is
/// partitioned; what is foreign, damaged, dead or missing is named on every console and left alone.
/// Writes /run/larder/cas.json.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// The part of `identity.json` that counts here.
#[derive(Debug, Default, Deserialize)]
struct Identity {
    #[serde(default)]
    cas_disk: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Status<'a> {
    version: u32,
    /// `ok`, `created` or `failed`.
    status: &'a str,
    /// Device node that is mounted.
    device: Option<&'a Path>,
    /// Size of the partition in bytes.
    bytes: Option<u64>,
    /// Why there is no `/cas`.
    message: Option<&'a str>,
}

/// `/cas` as it was mounted.
struct Mounted {
    node: PathBuf,
    bytes: u64,
    created: bool,
}

/// After this long the operator hears that `/cas` takes its time.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// Runs `appliance mount cas`.
///
/// # Errors
///
/// There is no `/cas`; the reason was announced on every console.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    if mount::is_mounted(TARGET)? {
        log::info!("{TARGET} is mounted already");
        return Ok(());
    }
    let result = while_waiting(FIRST_WORD, still_waiting, mount_cas);
    let message = result
        .as_ref()
        .err()
        .map(|error| format!("no /cas: {error:#}"));
    let mounted = result.as_ref().ok();
    let status = Status {
        version: 1,
        status: match mounted {
            Some(mounted) if mounted.created => "created",
            Some(_) => "ok",
            None => "failed",
        },
        device: mounted.map(|mounted| mounted.node.as_path()),
        bytes: mounted.map(|mounted| mounted.bytes),
        message: message.as_deref(),
    };
    let written = serde_json::to_vec_pretty(&status)
        .map_err(anyhow::Error::from)
        .and_then(|mut text| {
            text.push(b'\n');
            Ok(disk::atomic::write(Path::new(STATUS), &text, 0o644)?)
        });
    if let Err(error) = written {
        log::warn!("{error:#}");
    }
    if let Some(message) = &message {
        announce(message);
    }
    result.map(|mounted| {
        log::info!(
            "{} is mounted, {} MiB",
            mounted.node.display(),
            mounted.bytes >> 20
        );
    })
}

/// Does `work`, and calls `say` at ever longer intervals, the first of which is `first`, while it
/// goes on.
fn while_waiting<T>(first: Duration, say: impl Fn() + Send, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut interval = first;
            while waiting.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                say();
                interval *= 2;
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn still_waiting() {
    announce(
        "/cas is not ready yet: its disk is being checked or does not answer; the cache waits for \
         it, 15 min at most",
    );
}

fn mount_cas() -> Result<Mounted> {
    let report = BootReport::read(Path::new(slots::REPORT_PATH))?;
    let settings = Settings::load(Path::new(settings::PATH));
    let place = place(identity(Path::new(IDENTITY)).cas_disk, &report)?;
    let (disk, partition) = match &place {
        Place::BootDisk => {
            let disk = whole_disk(Path::new(&report.disk))?;
            let partition = table(&disk)?;
            (disk, partition)
        }
        Place::Second(named) => second_disk(named, Path::new(&report.disk))?,
    };
    // While this is open and locked, udev does not re-read the table and take the partition away.
    let lock = Device::open(disk.node())?;
    lock.lock()?;
    let partition = match grow_partition(&disk) {
        Ok(Some(grown)) => grown,
        Ok(None) => partition,
        Err(error) => {
            announce(&format!(
                "{} is not grown: {error:#}",
                disk.node().display()
            ));
            partition
        }
    };
    let node = node(&disk, &partition)?;
    let created = prepare(&node, &settings)?;
    mount::mount(
        &node.display().to_string(),
        Path::new(TARGET),
        "ext4",
        settings.mount("cas"),
    )?;
    match grow::file_system(&node, Path::new(TARGET)) {
        Ok(None) => {}
        Ok(Some((old, new))) => {
            log::info!("{TARGET}: grown from {} to {} MiB", old >> 20, new >> 20);
        }
        Err(error) => announce(&error.to_string()),
    }
    if let Err(error) = mark(Path::new(TARGET)) {
        mount::unmount(Path::new(TARGET))?;
        return Err(error);
    }
    let bytes = partition.sectors() * u64::from(disk.sector_size);
    Ok(Mounted {
        node,
        bytes,
        created,
    })
}

/// Where `/cas` is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A partition of the disk that booted.
    BootDisk,
    /// The disk that the machine's entry names.
    Second(PathBuf),
}

/// The entry decides; a partition of the boot disk is never a substitute for the disk that it names.
fn place(named: Option<PathBuf>, report: &BootReport) -> Result<Place> {
    match (named, &report.cas) {
        (Some(disk), _) => Ok(Place::Second(disk)),
        (None, Some(_)) => Ok(Place::BootDisk),
        (None, None) => bail!(
            "the boot disk {} has no partition named {CAS_PARTITION}, and the machine's entry names \
             no second disk",
            report.disk
        ),
    }
}

/// A machine without identity is one without a second disk.
fn identity(path: &Path) -> Identity {
    let parsed = std::fs::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_slice(&text)?));
    parsed.unwrap_or_else(|error: anyhow::Error| {
        log::warn!(
            "{}: {error:#}; taking the partition of the boot disk",
            path.display()
        );
        Identity::default()
    })
}

/// The disk behind a device node, which may take its time to appear.
fn whole_disk(node: &Path) -> Result<Disk> {
    let root = Path::new(sysfs::BLOCK);
    until(DEVICE, Duration::from_millis(100), || {
        let name = sysfs::name_of(node)?;
        if let Some((disk, _)) = sysfs::disk_of(root, &name) {
            // Waiting would not change it.
            return Ok(Err(anyhow!(
                "{} is a partition of {disk}, not a disk",
                node.display()
            )));
        }
        sysfs::disks(root)
            .into_iter()
            .find(|disk| disk.name == name)
            .map(Ok)
            .ok_or_else(|| anyhow!("{} is no disk, or has no medium", node.display()))
    })?
}

/// The partition `cas` in the table of a disk.
fn table(disk: &Disk) -> Result<Partition> {
    let node = disk.node();
    let table =
        Table::read(&mut Device::open(&node)?).with_context(|| format!("{}", node.display()))?;
    table.by_name(CAS_PARTITION).cloned().ok_or_else(|| {
        anyhow!(
            "{} has no partition named {CAS_PARTITION}, but {}",
            node.display(),
            table.names()
        )
    })
}

/// The disk that the entry names: adopted, partitioned if it is blank, or refused.
fn second_disk(named: &Path, boot: &Path) -> Result<(Disk, Partition)> {
    let disk = whole_disk(named).with_context(|| {
        format!(
            "the disk {} that the machine's entry names is missing",
            named.display()
        )
    })?;
    let node = disk.node();
    if sysfs::name_of(boot).is_ok_and(|boot| boot == disk.name) {
        bail!(
            "{} is the disk that the machine booted from; the entry names the second one",
            named.display()
        );
    }
    let shown = if node == named {
        format!("{}", node.display())
    } else {
        format!("{} ({})", named.display(), node.display())
    };
    let verdict = blank::judge(&mut Device::open(&node)?)
        .with_context(|| format!("{shown} is not readable and is left alone"))?;
    match verdict {
        blank::Verdict::Adopt(partition) => Ok((disk, partition)),
        blank::Verdict::Refuse(reason) => bail!(
            "{shown} {reason}; it is left alone. Only a blank disk is taken: if nothing on this one \
             is needed, wipe its first two and its last MiB"
        ),
        blank::Verdict::Partition { begun } => {
            let mut device = Device::open_exclusive(&node)?;
            device.lock()?;
            let partition = blank::partition(&mut device, begun)
                .with_context(|| format!("{shown} cannot be partitioned"))?;
            grow::reread_table(&device)?;
            log::info!("{shown} was blank and has a partition {CAS_PARTITION} now");
            Ok((disk, partition))
        }
    }
}

/// Grows the partition to the end of its disk. `None`: nothing was needed, nothing was written.
pub(crate) fn grow_partition(disk: &Disk) -> Result<Option<Partition>> {
    let node = disk.node();
    if !grow::is_needed(&mut Device::open(&node)?, CAS_PARTITION)? {
        return Ok(None);
    }
    let mut device = Device::open_rw(&node)?;
    let growth = grow::partition(&mut device, CAS_PARTITION)?;
    for repaired in &growth.repaired {
        log::info!("{}: partition table put right: {repaired}", node.display());
    }
    if growth.new_bytes != growth.old_bytes {
        grow::tell_kernel(&device, &growth.partition)?;
        log::info!(
            "{}: partition {} grown from {} to {} MiB",
            node.display(),
            growth.partition.number,
            growth.old_bytes >> 20,
            growth.new_bytes >> 20
        );
    }
    Ok(Some(growth.partition))
}

/// Device node of a partition, which may take its time to appear.
fn node(disk: &Disk, partition: &Partition) -> Result<PathBuf> {
    until(DEVICE, Duration::from_millis(100), || {
        let root = Path::new(sysfs::BLOCK);
        let name = sysfs::partition_name(root, disk, partition.number, partition.first);
        name.map(|name| Path::new("/dev").join(name))
            .filter(|node| node.exists())
            .ok_or_else(|| {
                anyhow!(
                    "the kernel does not know partition {} of {}",
                    partition.number,
                    disk.name
                )
            })
    })
}

/// Makes a pristine file system or checks ours; anything else is left alone. Returns whether it was
/// made.
fn prepare(node: &Path, settings: &Settings) -> Result<bool> {
    let shown = node.display();
    let content = probe::identify(&mut Device::open(node)?)
        .with_context(|| format!("{shown} is not readable and is left alone"))?;
    match content {
        Content::Ext4(ext4) if ext4.is_pristine() => {
            let mut partition = Device::open_exclusive(node)?;
            let uuid = mkfs::make(&mut partition, LABEL_CAS, &settings.mkfs("cas"))
                .with_context(|| format!("{shown} cannot be made"))?;
            log::info!("{shown}: made the file system {uuid} for {TARGET}");
            Ok(true)
        }
        Content::Ext4(ext4) if ext4.label == LABEL_CAS => {
            check(node)?;
            Ok(false)
        }
        other => bail!("{shown} holds {other} instead of a Larder /cas, and is left alone"),
    }
}

fn check(node: &Path) -> Result<()> {
    match fsck::ext4(node, FSCK, &mut |line| log::info!("e2fsck: {line}")) {
        Ok(Verdict::Clean) => Ok(()),
        Ok(Verdict::Repaired(what)) => {
            log::info!("{}: repaired: {what}", node.display());
            Ok(())
        }
        Ok(Verdict::Damaged(what)) => bail!(
            "{0} is damaged: {what}; repair it with e2fsck -y {0}, then restart this unit",
            node.display()
        ),
        Err(error @ disk::Error::Start { .. }) => {
            log::warn!("{error}; the kernel replays the journal");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes the marker of a new file system, or checks that this version knows the format of an old
/// one.
fn mark(root: &Path) -> Result<()> {
    match Marker::read(root)? {
        Some(found) if found.format <= marker::FORMAT => Ok(()),
        Some(found) => bail!(
            "{} was written by a newer version (format {}, this one knows {})",
            root.display(),
            found.format,
            marker::FORMAT
        ),
        None => {
            let own = |error: std::io::Error| {
                anyhow!("cannot hand {} to the cache: {error}", root.display())
            };
            chown(root, Some(CACHE), Some(CACHE)).map_err(own)?;
            std::fs::set_permissions(root, PermissionsExt::from_mode(0o750)).map_err(own)?;
            // Last: without it, all of this is done again.
            let marker = Marker {
                format: marker::FORMAT,
                uuid: disk::random_uuid()?,
            };
            marker.write(root)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_said_again_and_again_and_a_short_one_never() {
        let (told, hear) = std::sync::mpsc::channel();
        let say = move || told.send(()).unwrap();
        let result = while_waiting(Duration::from_millis(1), say, || {
            hear.recv().unwrap();
            hear.recv().unwrap();
            7
        });
        assert_eq!(result, 7);
        while_waiting(Duration::MAX, || panic!("there was no wait"), || {});
    }

    fn report(cas: Option<&str>) -> BootReport {
        let mut report = BootReport::new("/dev/vda", "ab");
        report.cas = cas.map(Into::into);
        report
    }

    #[test]
    fn the_entry_says_where_cas_is() {
        let named = || Some(PathBuf::from("/dev/sdb"));
        let second = Place::Second("/dev/sdb".into());
        assert_eq!(place(named(), &report(None)).unwrap(), second);
        assert_eq!(place(named(), &report(Some("/dev/vda8"))).unwrap(), second);
        assert_eq!(
            place(None, &report(Some("/dev/vda8"))).unwrap(),
            Place::BootDisk
        );
        let error = place(None, &report(None)).unwrap_err().to_string();
        assert!(
            error.contains("/dev/vda has no partition named cas"),
            "{error}"
        );
    }

    #[test]
    fn identity_is_read_and_its_absence_means_one_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.json");
        assert_eq!(identity(&path).cas_disk, None);
        std::fs::write(&path, r#"{"host":"a","cas_disk":"/dev/disk/by-id/x"}"#).unwrap();
        assert_eq!(
            identity(&path).cas_disk.unwrap(),
            Path::new("/dev/disk/by-id/x")
        );
        std::fs::write(&path, r#"{"cas_disk":null}"#).unwrap();
        assert_eq!(identity(&path).cas_disk, None);
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(identity(&path).cas_disk, None);
    }

    #[test]
    fn a_newer_format_is_refused_and_ours_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let uuid = disk::random_uuid().unwrap();
        let write = |format| Marker { format, uuid }.write(folder.path()).unwrap();
        write(marker::FORMAT + 1);
        let error = mark(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("newer version (format 2, this one knows 1)"),
            "{error}"
        );
        write(marker::FORMAT);
        mark(folder.path()).unwrap();
        assert_eq!(Marker::read(folder.path()).unwrap().unwrap().uuid, uuid);
    }
}
