//! What is on the disk and what will be written, for people and for scripts.

use std::fmt;

use formats::gpt::{Disks, Layout, Role, SectorSize};
use serde::Serialize;

use super::facts::{Facts, Holds};
use super::image::Image;
use crate::layout;
use crate::size::show;

/// Everything that is said before anything is written.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    disk: Facts,
    image: ImageWords,
    host: HostWords,
    /// The table that is to be; empty if the disk cannot have one.
    partitions: Vec<Planned>,
    /// Why nothing will be written; empty if nothing stands against it.
    refusals: Vec<Refusal>,
    /// What is to be typed, or given with `--yes`.
    confirm: String,
    #[serde(skip)]
    layout: Option<Layout>,
}

/// Which image.
#[derive(Debug, Serialize)]
struct ImageWords {
    path: std::path::PathBuf,
    version: String,
    root_hash: String,
    /// What it was checked against, besides itself.
    manifest: Option<std::path::PathBuf>,
}

/// Which host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct HostWords {
    pub(super) name: String,
    pub(super) environment: config::Environment,
    pub(super) region: String,
    /// The second disk; none: `/cas` is on this one.
    pub(super) cas: Option<String>,
}

/// One partition to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Planned {
    number: u32,
    start: u64,
    size: u64,
    label: String,
    holds: String,
}

/// One reason to write nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    /// `host-disk`, `busy`, `read-only`, `cas-disk`, `sector-size`, `too-small`, `larder-cas` or
    /// `not-empty`.
    pub(super) code: &'static str,
    /// What is wrong and what to do.
    pub(super) message: String,
}

impl Plan {
    /// Fits the image to the disk. `cas_is_disk`: the host's entry names this very disk for `/cas`.
    /// `seed` is what the machine's own GUIDs derive from.
    pub(super) fn new(
        facts: Facts,
        image: &Image,
        host: HostWords,
        cas_is_disk: bool,
        wipe: bool,
        seed: &str,
    ) -> Self {
        let mut refusals = used(&facts);
        let mut refuse = |code, message: String| refusals.push(Refusal { code, message });
        let path = facts.path.display();
        if facts.read_only {
            refuse("read-only", format!("{path} is write-protected"));
        }
        if cas_is_disk {
            refuse(
                "cas-disk",
                format!(
                    "{path} is the disk that the entry of {} names for /cas; flash its other disk",
                    host.name
                ),
            );
        }
        let layout = match fit(&facts, image, host.cas.is_some(), seed) {
            Ok(layout) => Some(layout),
            Err((code, message)) => {
                refuse(code, format!("{path}: {message}"));
                None
            }
        };
        match &facts.holds {
            Holds::Cas if !wipe => refuse(
                "larder-cas",
                format!(
                    "{path} holds the /cas of a Larder: all artifacts in it would be lost; if that \
                     is meant, say --wipe"
                ),
            ),
            Holds::Other(what) if !wipe => refuse(
                "not-empty",
                format!("{path} {what}; if all of it may be lost, say --wipe"),
            ),
            _ => {}
        }
        let partitions = layout.iter().flat_map(|layout| &layout.partitions);
        let partitions = partitions
            .map(|partition| Planned {
                number: partition.number,
                start: partition.start,
                size: partition.size,
                label: partition.label.clone(),
                holds: will_hold(partition.role, image, &host.name),
            })
            .collect();
        Self {
            confirm: facts.word().to_owned(),
            image: ImageWords {
                path: image.path.clone(),
                version: image.version.clone(),
                root_hash: image.root_hash.to_string(),
                manifest: image.manifest.clone(),
            },
            disk: facts,
            host,
            partitions,
            refusals,
            layout,
        }
    }

    /// Why nothing may be written.
    pub(super) fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// The disk.
    pub(super) fn disk(&self) -> &Facts {
        &self.disk
    }

    /// The partitions; there if nothing is refused.
    pub(super) fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }
}

/// Refusals because of who uses the disk.
fn used(facts: &Facts) -> Vec<Refusal> {
    let path = facts.path.display();
    if facts.uses.iter().any(|its| its.root) {
        return vec![Refusal {
            code: "host-disk",
            message: format!("this machine runs from {path}"),
        }];
    }
    facts
        .uses
        .iter()
        .map(|its| Refusal {
            code: "busy",
            message: format!(
                "{path} is busy: {} is {}; end that first",
                its.device, its.how
            ),
        })
        .collect()
}

/// Where the partitions will be, or a refusal's code and message.
fn fit(
    facts: &Facts,
    image: &Image,
    two: bool,
    seed: &str,
) -> Result<Layout, (&'static str, String)> {
    let sector = SectorSize::from_bytes(facts.sector_size.into()).ok_or_else(|| {
        let size = facts.sector_size;
        (
            "sector-size",
            format!("sectors of {size} bytes; Larder knows 512 and 4096"),
        )
    })?;
    let disks = if two { Disks::Two } else { Disks::One };
    let mut request = layout::request(
        facts.size,
        sector,
        disks,
        seed,
        &image.version,
        image.root_hash,
    );
    let length = |role| {
        image
            .part(role)
            .map_or(0, |part| super::write::length(&part))
    };
    request.cas_min = request.cas_min.max(length(Role::Cas));
    // An image that was built for a larger disk brings a larger empty file system.
    request.state_size = request.state_size.max(length(Role::State));
    Layout::new(&request).map_err(|error| ("too-small", error.to_string()))
}

fn will_hold(role: Role, image: &Image, host: &str) -> String {
    match role {
        Role::Bios => "nothing (reserved)".into(),
        Role::Esp => format!(
            "FAT32: boot loader, larder {}, the name {host}",
            image.version
        ),
        Role::RootA => format!("root of larder {}", image.version),
        Role::RootAVerity => "its hash tree".into(),
        Role::RootB => "nothing until the first update".into(),
        Role::RootBVerity => "its hash tree".into(),
        Role::State => "/var, made at the first boot".into(),
        Role::Cas => "/cas, made at the first boot".into(),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = &self.disk;
        writeln!(f, "Disk   {}", disk.path.display())?;
        let mut words = Vec::new();
        words.extend(disk.model.clone());
        words.extend(
            disk.serial
                .as_ref()
                .map(|serial| format!("serial {serial}")),
        );
        words.push(format!("{} ({} bytes)", show(disk.size), disk.size));
        words.push(format!("sectors of {} bytes", disk.sector_size));
        writeln!(f, "       {}", words.join(", "))?;
        let now = match &disk.holds {
            _ if disk.new => "will be made",
            Holds::Nothing => "is empty",
            Holds::Cas => "holds a Larder /cas",
            Holds::Other(what) => what,
        };
        writeln!(f, "       {now}")?;
        let rows = disk.partitions.iter().map(|found| {
            let holds = match &*found.uses.join(", ") {
                "" => found.holds.clone(),
                uses => format!("{}, {uses}", found.holds),
            };
            (found.number, found.start, found.size, &found.label, holds)
        });
        table(f, rows)?;
        let image = &self.image;
        writeln!(f, "\nImage  {}", image.path.display())?;
        writeln!(
            f,
            "       larder {}, root {}",
            image.version, image.root_hash
        )?;
        match &image.manifest {
            Some(manifest) => writeln!(f, "       is what {} says", manifest.display())?,
            None => writeln!(
                f,
                "       no manifest beside it: only its root is known to be whole"
            )?,
        }
        let host = &self.host;
        writeln!(f, "\nHost   {}", host.name)?;
        let environment = format!("{:?}", host.environment).to_lowercase();
        writeln!(f, "       {environment}, {}", host.region)?;
        match &host.cas {
            Some(device) => writeln!(f, "       /cas on a second disk, there {device}")?,
            None => writeln!(f, "       /cas on this disk")?,
        }
        if !self.partitions.is_empty() {
            writeln!(f, "\nThe disk will be")?;
            let rows = self.partitions.iter().map(|planned| {
                let holds = planned.holds.clone();
                (
                    planned.number,
                    planned.start,
                    planned.size,
                    &planned.label,
                    holds,
                )
            });
            table(f, rows)?;
        }
        Ok(())
    }
}

/// Partitions in columns.
fn table<'a>(
    f: &mut fmt::Formatter<'_>,
    rows: impl Iterator<Item = (u32, u64, u64, &'a String, String)>,
) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|row| row.3.chars().count()).max();
    for (number, start, size, label, holds) in rows {
        writeln!(
            f,
            "       {number:>3}  at {:>10}  {:>10}  {label:width$}  {holds}",
            show(start),
            show(size),
            width = width.unwrap_or_default(),
        )?;
    }
    Ok(())
}
