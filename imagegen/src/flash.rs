//! `imagegen flash`: puts an image on a disk (or into a file that stands for one), fitted to it,
//! for one host of the fleet.
//!
//! First the image is checked as a whole, then the disk is looked at, then the plan is shown, then
//! the user is asked: up to here nothing is written. [`write`](mod@write) tells in which order the
//! rest happens.

mod confirm;
mod facts;
mod image;
mod meter;
mod plan;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod usage;
mod write;

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use disk::Device;
use formats::gpt::{Role, SectorSize};
use formats::tree::{Kind, Node, Tree};

use confirm::{Answer, confirm};
use facts::{Facts, Place};
use image::Image;
use meter::Meter;
use plan::{HostWords, Plan};
use target::Medium;
use usage::Kernel;
use write::Job;

use crate::fleet;
use crate::size::parse_size;

/// Put an image on a disk, for one host of the fleet.
///
/// Shows what is on the disk and what it will be, and asks before anything is written. The disk
/// gets a partition table of its own size and identity, the image, and the host's name. Everything
/// is read back, and the partition table comes last: a flash that was interrupted does not boot;
/// run it again.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit status: 0 written (or planned, with --dry-run), 1 failed, 2 wrong usage, 3 refused because of \
what the disk is or holds, 4 not confirmed. With 2, 3 and 4 nothing was written.

Examples:
  imagegen flash --host cache-eu-central --disk /dev/sdb --dry-run
  imagegen flash --host cache-eu-central --disk /dev/sdb
  imagegen flash --host dev --disk disk.raw --size 40G")]
pub struct FlashArgs {
    /// Host of the fleet that the machine will be
    #[arg(long, value_name = "NAME")]
    pub host: String,

    /// The whole disk to write to, or a file that stands for one
    #[arg(long, value_name = "PATH")]
    pub disk: PathBuf,

    /// The image: larder.raw, or larder.raw.zst; checked against the manifest beside it
    #[arg(long, default_value = "build/larder.raw", value_name = "FILE")]
    pub image: PathBuf,

    /// Folder of the configuration
    #[arg(long, default_value = "configs", value_name = "DIR")]
    pub configs: PathBuf,

    /// Do not ask: the disk with this serial number (or name, if it has none) is meant
    #[arg(long, value_name = "SERIAL")]
    pub yes: Option<String>,

    /// All that the disk holds may be lost, even the /cas of a Larder
    #[arg(long)]
    pub wipe: bool,

    /// Show the plan and write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,

    /// Make the file of --disk, with this size
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,

    /// Bytes of a sector of the disk that a file stands for: 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES", value_parser = parse_sector)]
    pub sector_size: Option<SectorSize>,
}

fn parse_sector(text: &str) -> Result<SectorSize, String> {
    text.parse()
        .ok()
        .and_then(SectorSize::from_bytes)
        .ok_or_else(|| format!("`{text}` is no size of a sector: 512 and 4096 are"))
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    Planned,
    Refused,
    NotConfirmed,
}

/// Where [`FlashArgs::host`] is written to (read by stage1).
const HOST_FILE: &str = "/larder/host";

/// Shows the plan, asks, writes, reads back.
///
/// # Errors
/// The image, the configuration or the disk cannot be used, or the disk failed; what it then holds
/// is said.
pub fn run(args: FlashArgs) -> Result<ExitCode> {
    let mut input = std::io::stdin().lock();
    let answer = match &args.yes {
        Some(yes) => Answer::Given(yes),
        None if input.is_terminal() => Answer::Ask(&mut input),
        None => Answer::Nobody,
    };
    let mut said = Vec::new();
    let outcome = flash(
        &args,
        &Kernel::default(),
        answer,
        &Meter::new(),
        &mut std::io::stdout(),
        &mut said,
    )?;
    for line in said {
        eprintln!("{line}");
    }
    Ok(ExitCode::from(match outcome {
        Outcome::Written | Outcome::Planned => 0,
        Outcome::Refused => 3,
        Outcome::NotConfirmed => 4,
    }))
}

/// As [`run`]; the plan goes to `out`, last words to `said`.
fn flash(
    args: &FlashArgs,
    kernel: &Kernel,
    answer: Answer<'_>,
    meter: &Meter,
    out: &mut dyn Write,
    said: &mut Vec<String>,
) -> Result<Outcome> {
    let host = fleet::host(&args.configs, &args.host)?;
    let place = Place::find(&args.disk, args.size, kernel)?;
    let image = Image::open(&args.image, meter)?;
    if same_file(&args.image, &args.disk) {
        bail!("{} is the image itself", args.disk.display());
    }
    if host.disks.cas.is_none() && image.part(Role::Cas).is_none() {
        bail!(
            "{} has no /cas: it was built for a host with two disks, and {} has one; build an \
             image without --host",
            args.image.display(),
            args.host
        );
    }
    let facts = Facts::gather(&args.disk, &place, args.sector_size, kernel)?;
    let cas_is_disk = host
        .disks
        .cas
        .as_deref()
        .is_some_and(|cas| is_disk(cas, &place));
    let words = HostWords {
        name: args.host.clone(),
        environment: host.environment,
        region: host.region,
        cas: host.disks.cas,
    };
    let seed = disk::random_uuid()?;
    let plan = Plan::new(
        facts,
        &image,
        words,
        cas_is_disk,
        args.wipe,
        &seed.to_string(),
    );
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
    } else {
        write!(out, "{plan}")?;
    }
    out.flush()?;
    let esp = machine_esp(&image, &args.host)?;
    let layout = match plan.layout() {
        Some(layout) if plan.refusals().is_empty() => layout,
        _ => {
            let refused = plan.refusals().iter();
            said.extend(refused.map(|refusal| format!("refused: {}", refusal.message)));
            said.push("nothing was written".into());
            return Ok(Outcome::Refused);
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let job = Job {
        image: &image,
        layout,
        esp: &esp,
        volume_id: seed.as_fields().0,
        clock: now.map_or(0, |now| now.as_secs() as i64),
    };
    write::check_esp(&job)?;
    if args.dry_run {
        return Ok(Outcome::Planned);
    }
    if let Err(why) = confirm(plan.disk(), answer)? {
        said.push(format!("{why}; nothing was written"));
        return Ok(Outcome::NotConfirmed);
    }
    let Some(medium) = take(args, &place, plan.disk(), kernel, said)? else {
        return Ok(Outcome::Refused);
    };
    vm::interrupt::install();
    let written = write::write(&medium, &job, meter);
    if let Err(error) = written {
        if plan.disk().new {
            // Half of one is of no use, and its name would be in the way of the next try.
            let _ = std::fs::remove_file(&args.disk);
            return Err(error.context(format!("{} was not made", args.disk.display())));
        }
        return Err(error.context(format!(
            "{} is half written and has no partition table, so it does not boot; flash it again",
            args.disk.display()
        )));
    }
    said.push(format!(
        "{} holds larder {} for {}; all that was written was read back and is right",
        args.disk.display(),
        image.version,
        args.host
    ));
    Ok(Outcome::Written)
}

/// Opens the disk so that nobody else can use it; `None` if somebody does, which is said.
fn take(
    args: &FlashArgs,
    place: &Place,
    planned: &Facts,
    kernel: &Kernel,
    said: &mut Vec<String>,
) -> Result<Option<Medium>> {
    let path = &args.disk;
    if let Place::New(size) = place {
        let cannot = || format!("cannot make {}", path.display());
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        if let Err(error) = file.with_context(cannot)?.set_len(*size) {
            let _ = std::fs::remove_file(path);
            return Err(error).with_context(cannot);
        }
    }
    let sector = planned.sector_size;
    let device = match Device::open_exclusive(path) {
        Err(disk::Error::Path { cause, .. })
            if cause.kind() == std::io::ErrorKind::ResourceBusy =>
        {
            said.push(format!(
                "refused: {} is busy: something holds it or a part of it; nothing was written",
                path.display()
            ));
            return Ok(None);
        }
        other => facts::open(path, other)?.with_sector_size(sector),
    };
    // udev keeps away from a locked disk.
    device.lock()?;
    if !planned.new {
        // What was shown to the user may be long ago.
        let now = Facts::gather(path, place, args.sector_size, kernel)?;
        if now != *planned {
            said.push(format!(
                "refused: {} has changed since the plan was shown; nothing was written",
                path.display()
            ));
            return Ok(None);
        }
    }
    // Last: closing any other handle of the file would give the lock back.
    if !matches!(place, Place::Block(_)) && !lock_file(&device) {
        said.push(format!(
            "refused: another program (a virtual machine?) uses {}; nothing was written",
            path.display()
        ));
        return Ok(None);
    }
    Ok(Some(Medium(device)))
}

/// Locks a plain file as QEMU does with the disks of its machines; whether that could be had.
fn lock_file(device: &Device) -> bool {
    use rustix::fs::{FlockOperation, fcntl_lock};
    use rustix::io::Errno;
    let locked = fcntl_lock(device.file(), FlockOperation::NonBlockingLockExclusive);
    // A file system without locks says nothing of other users.
    !matches!(locked, Err(Errno::AGAIN | Errno::ACCESS))
}

/// The image's ESP with the host's name.
fn machine_esp(image: &Image, host: &str) -> Result<Tree> {
    let mut esp = image.esp.clone();
    let origin = "imagegen flash";
    esp.add("/larder", Node::new(Kind::Dir, 0o755, origin))
        .context("the ESP of the image")?;
    let file = Kind::File(format!("{host}\n").into_bytes().into());
    esp.insert(HOST_FILE, Node::new(file, 0o644, origin))
        .context("the ESP of the image")?;
    Ok(esp)
}

/// Whether two paths lead to one file.
fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether the path that an entry has for its second disk means this disk. Only names by identity
/// do so on every machine; `/dev/sdb` is here another one than there.
fn is_disk(cas: &str, place: &Place) -> bool {
    let Place::Block(name) = place else {
        return false;
    };
    cas.starts_with("/dev/disk/by-id/")
        && disk::sysfs::name_of(Path::new(cas)).is_ok_and(|its| its == *name)
}
