//! `imagegen verify`: whether an image, or a disk that was made from one, is whole.
//!
//! Everything that has a checksum is compared with it: both partition tables, the hash tree and
//! all data below it, the metadata of the file systems, and, with the manifest of the image, every
//! part and every file. A machine's own disk (other GUIDs, another size, files of its own on the
//! ESP) is as good as an image file.

mod boot;
mod filesystem;
mod manifest;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use formats::gpt::{Copy, Defect, Role};
use formats::region::is_zero;
use serde::Serialize;

use crate::image::{Device, Image};
use crate::manifest::Manifest;
use crate::output;
use crate::size;

/// Check whether an image or disk is whole, byte for byte where it has a checksum.
///
/// Partition tables, boot images, the root against its hash tree, the file systems; and, with the
/// image's manifest, the hash of every part and file. Works on image files and on disks they were
/// flashed to. Exit status: 0 all is well, 1 something is not.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The image file or block device
    #[arg(default_value = "build/larder.raw")]
    pub image: PathBuf,

    /// The manifest to check against [default: the one beside the image, if there is one]
    #[arg(long, value_name = "FILE", conflicts_with = "no_manifest")]
    pub manifest: Option<PathBuf>,

    /// Check without a manifest
    #[arg(long)]
    pub no_manifest: bool,

    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth a word, not wrong.
    Note,
    /// Wrong.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `gpt`, a partition's role, `manifest`.
    pub part: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found; of what is wrong, where.
    pub text: String,
}

/// The checks of an image, in the order of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, part: &str, outcome: Outcome, text: impl Into<String>) {
        self.0.push(Check {
            part: part.to_string(),
            outcome,
            text: text.into(),
        });
    }

    fn ok(&mut self, part: &str, text: impl Into<String>) {
        self.add(part, Outcome::Ok, text);
    }

    fn note(&mut self, part: &str, text: impl Into<String>) {
        self.add(part, Outcome::Note, text);
    }

    fn fail(&mut self, part: &str, text: impl Into<String>) {
        self.add(part, Outcome::Fail, text);
    }

    /// The checks.
    pub fn iter(&self) -> impl Iterator<Item = &Check> {
        self.0.iter()
    }

    /// How many failed.
    pub fn failures(&self) -> usize {
        let failed = |check: &&Check| check.outcome == Outcome::Fail;
        self.0.iter().filter(failed).count()
    }

    /// One line a check, and a verdict.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let width = self.0.iter().map(|check| check.part.len()).max();
        for check in &self.0 {
            let word = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Note => "note",
                Outcome::Fail => "FAIL",
            };
            let width = width.unwrap_or(0);
            // Writing to a String does not fail.
            let _ = writeln!(out, "{word:4}  {:width$}  {}", check.part, check.text);
        }
        let (failures, all) = (self.failures(), self.0.len());
        let _ = match failures {
            0 => writeln!(out, "whole: {all} checks"),
            _ => writeln!(out, "NOT whole: {failures} of {all} checks failed"),
        };
        out
    }
}

/// Checks and prints.
///
/// # Errors
/// An image or manifest that cannot be read at all.
pub fn run(args: VerifyArgs) -> Result<ExitCode> {
    let image = Image::open(&args.image)?;
    let beside = Manifest::path_beside(&args.image);
    let manifest = match (&args.manifest, args.no_manifest) {
        (Some(path), _) => Some(Manifest::load(path)?),
        (None, false) if beside.exists() => Some(Manifest::load(&beside)?),
        (None, _) => None,
    };
    let checks = check(&image, manifest.as_ref());
    if args.json {
        output::print_json(&checks)?;
    } else {
        let head = format!("{}, {}\n", args.image.display(), size::show(image.size()));
        output::print(&(head + &checks.text()))?;
    }
    Ok(match checks.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Checks an image; never panics and always ends, whatever it holds.
pub fn check<D: Device>(image: &Image<D>, manifest: Option<&Manifest>) -> Checks {
    let mut checks = Checks::default();
    table(image, &mut checks);
    bios(image, &mut checks);
    let system = image.part(Role::RootA).is_some();
    let boots = match system {
        true => boot::esp(image, &mut checks),
        false => None,
    };
    let boots = boots.unwrap_or_default();
    let mut root = None;
    for slot in image.slots() {
        let found = boot::slot(image, &slot, &boots, &mut checks);
        let hash = manifest.map(|manifest| manifest.root_hash.0);
        if hash == Some(slot.root_hash.0) {
            root = Some((slot, found));
        }
    }
    for role in [Role::State, Role::Cas] {
        if image.part(role).is_some() {
            filesystem::writable(image, role, &mut checks);
        }
    }
    if let Some(manifest) = manifest {
        manifest::check(image, manifest, &boots, root, &mut checks);
    }
    checks
}

/// Both copies of the partition table, and the partitions that a machine cannot be without.
fn table<D: Device>(image: &Image<D>, checks: &mut Checks) {
    let table = image.table();
    for defect in &table.defects {
        match defect {
            // A disk that was enlarged: the next boot moves the backup.
            Defect::NotAtEnd { .. } => checks.note("gpt", format!("{defect}; it has grown")),
            Defect::Header {
                copy: Copy::Backup, ..
            } => checks.fail("gpt", format!("{defect} (is the image cut off?)")),
            _ => checks.fail("gpt", defect.to_string()),
        }
    }
    if table.defects.is_empty() {
        let (count, sector) = (table.partitions().len(), table.sector.bytes());
        checks.ok(
            "gpt",
            format!("both tables agree: {count} partitions, sectors of {sector} bytes"),
        );
    }
    if image.part(Role::RootA).is_none() {
        checks.note("gpt", "a disk for /cas alone");
        return;
    }
    for role in Role::ALL {
        match image.part(role) {
            None if role == Role::Cas => checks.note("cas", "on another disk"),
            None => checks.fail(role.name(), "there is no such partition"),
            Some(entry) if entry.attributes & role.attributes() != role.attributes() => {
                checks.fail(
                    role.name(),
                    format!("partition {} is not marked read-only", entry.number),
                );
            }
            Some(_) => {}
        }
    }
}

/// The partition that is reserved and empty.
fn bios<D: Device>(image: &Image<D>, checks: &mut Checks) {
    let Some(entry) = image.part(Role::Bios) else {
        return;
    };
    match first_nonzero(image, entry.start, entry.end()) {
        Ok(None) => checks.ok("bios", "reserved, empty"),
        // A disk may have held something else before.
        Ok(Some(at)) => checks.note("bios", format!("reserved, but byte {at} is not zero")),
        Err(error) => checks.fail("bios", error),
    }
}

/// The first byte of the device from `start` to `end` that is not zero.
fn first_nonzero<D: Device>(image: &Image<D>, start: u64, end: u64) -> Result<Option<u64>, String> {
    let mut buffer = vec![0; 1 << 20];
    for range in image.data_within(start..end) {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(buffer.len() as u64) as usize;
            image
                .device()
                .read_exact_at(&mut buffer[..len], at)
                .map_err(|error| format!("reading at byte {at} failed: {error}"))?;
            if !is_zero(&buffer[..len]) {
                let within = buffer[..len].iter().position(|&byte| byte != 0);
                return Ok(Some(at + within.unwrap_or(0) as u64));
            }
            at += len as u64;
        }
    }
    Ok(None)
}

/// An error and its causes in one line.
fn words(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their cause's words.
        if !out.ends_with(&text) {
            out = format!("{out}: {text}");
        }
        cause = error.source();
    }
    out
}
