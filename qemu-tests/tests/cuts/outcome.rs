//! What a cut has left on a disk, found out without booting it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::disk::{extract, partition};
use qemu_tests::recorder::{Cut, Record, Recorder};
use vm::find_program;

/// Files below /var that a machine makes once, and what they are.
pub(crate) const KEPT: [(&str, &str); 2] = [
    ("machine id", "/lib/larder/machine-id"),
    ("host key", "/lib/larder/ssh/ssh_host_ed25519_key.pub"),
];

/// What a cut has left: cuts of one outcome need one boot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outcome {
    /// Whether the artifact is there, whole.
    pub(crate) artifact: bool,
    cas: String,
    state: String,
    esp: String,
    table: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let artifact = if self.artifact { "with" } else { "no" };
        write!(
            f,
            "table {}; ESP {}; state {}; /cas {}, {artifact} artifact",
            self.table, self.esp, self.state, self.cas
        )
    }
}

/// Which writes to a part of the disk a cut leaves there: equal for equal content.
type Signature = (usize, Vec<usize>, Option<(usize, u64)>);

/// Looks at disks; each part only once for the same writes to it.
pub(crate) struct Examiner<'a> {
    folder: &'a Path,
    segments: Vec<String>,
    artifact: Vec<u8>,
    /// The boot images as they were.
    images: Vec<Vec<u8>>,
    parts: [Range<u64>; 4],
    known: [HashMap<Signature, (String, bool)>; 4],
    looks: usize,
}

impl<'a> Examiner<'a> {
    /// For disks that come from `recorder`'s, on which `artifact` is in one of the files `segments` of
    /// `/cas`.
    pub(crate) fn new(
        recorder: &Recorder,
        folder: &'a Path,
        segments: &[String],
        artifact: &[u8],
    ) -> Result<Examiner<'a>> {
        // The base has the same start of every partition; /cas grows to the end of the disk.
        let base = qemu_tests::shipped_image()?;
        let end = recorder.size();
        let (esp, state) = (partition(&base, "ESP")?, partition(&base, "state")?);
        let cas = partition(&base, "cas")?.start..end - (1 << 20);
        let images = images(&base, &esp)?;
        Ok(Examiner {
            folder,
            segments: segments.to_owned(),
            artifact: artifact.to_owned(),
            images: images.into_values().collect(),
            parts: [0..1 << 20, esp, state, cas],
            known: Default::default(),
            looks: 0,
        })
    }

    /// How often a part of a disk was really looked at.
    pub(crate) fn looks(&self) -> usize {
        self.looks
    }

    /// Looks at the disk that a cut has left.
    ///
    /// # Errors
    /// The next boot would not go on from there.
    pub(crate) fn examine(
        &mut self,
        disk: &Path,
        records: &[Record],
        cut: &Cut,
    ) -> Result<Outcome> {
        let durable = records[..cut.at]
            .iter()
            .rposition(|record| *record == Record::Flush)
            .map_or(0, |flush| flush + 1);
        let mut found = Vec::new();
        for part in 0..self.parts.len() {
            let signature = signature(records, cut, durable, &self.parts[part]);
            if let Some(known) = self.known[part].get(&signature) {
                found.push(known.clone());
                continue;
            }
            self.looks += 1;
            let range = self.parts[part].clone();
            let outcome = match part {
                0 => table(disk),
                1 => self.esp(disk, &range),
                2 => self.state(disk, range),
                _ => self.cas(disk, range),
            }?;
            self.known[part].insert(signature, outcome.clone());
            found.push(outcome);
        }
        let mut words = found.iter().map(|(words, _)| words.clone());
        let mut next = || words.next().unwrap_or_default();
        Ok(Outcome {
            table: next(),
            esp: next(),
            state: next(),
            cas: next(),
            artifact: found[3].1,
        })
    }

    fn esp(&self, disk: &Path, range: &Range<u64>) -> Result<(String, bool)> {
        let file = self.folder.join("part");
        extract(disk, range.clone(), &file)?;
        let name = file.display().to_string();
        let (code, said) = run("fsck.fat", "dosfstools", &["-a", &name])?;
        ensure!(code <= 1, "fsck.fat -a: {code}: {said}");
        let (code, words) = run("fsck.fat", "dosfstools", &["-n", &name])?;
        ensure!(code == 0, "the ESP stays damaged: {words}");
        let images = images(&file, &(0..range.end - range.start))?;
        std::fs::remove_file(file)?;
        // A rename that was cut may leave an empty file, which the boot loader passes over.
        let mut names = Vec::new();
        for (name, content) in &images {
            let whole = self.images.contains(content);
            let size = content.len();
            ensure!(whole || size == 0, "{name} has {size} bytes: {said}");
            names.push(if whole {
                name.clone()
            } else {
                format!("({name})")
            });
        }
        let whole = names.iter().any(|name| !name.starts_with('('));
        ensure!(whole, "no boot image is left, but {names:?}: {said}");
        Ok((names.join(" "), true))
    }

    fn state(&self, disk: &Path, range: Range<u64>) -> Result<(String, bool)> {
        let file = self.folder.join("part");
        extract(disk, range, &file)?;
        let Some(mut words) = checked(&file, "larder-state").context("state")? else {
            std::fs::remove_file(file)?;
            return Ok(("pristine".into(), false));
        };
        for (what, path) in KEPT {
            if !read(&file, path)?.is_empty() {
                words = format!("{words}, {what}");
            }
        }
        std::fs::remove_file(file)?;
        Ok((words, true))
    }

    fn cas(&self, disk: &Path, range: Range<u64>) -> Result<(String, bool)> {
        let file = self.folder.join("part");
        extract(disk, range, &file)?;
        let Some(mut words) = checked(&file, "larder-cas").context("/cas")? else {
            std::fs::remove_file(file)?;
            return Ok(("pristine".into(), false));
        };
        if !read(&file, "/.larder")?.is_empty() {
            words.push_str(", marked");
        }
        let mut whole = false;
        for segment in &self.segments {
            whole |= holds(&read(&file, segment)?, &self.artifact);
        }
        std::fs::remove_file(file)?;
        Ok((words, whole))
    }
}

/// The files of [`KEPT`] that are on a disk.
pub(crate) fn kept(disk: &Path, folder: &Path) -> Result<BTreeMap<&'static str, String>> {
    let file = folder.join("state");
    extract(disk, partition(disk, "state")?, &file)?;
    let mut kept = BTreeMap::new();
    if checked(&file, "larder-state")?.is_some() {
        for (what, path) in KEPT {
            let content = read(&file, path)?;
            if !content.is_empty() {
                kept.insert(what, String::from_utf8(content)?);
            }
        }
    }
    std::fs::remove_file(file)?;
    Ok(kept)
}

fn signature(records: &[Record], cut: &Cut, durable: usize, part: &Range<u64>) -> Signature {
    let inside = |index: usize| match &records[index] {
        Record::Write(write) => write.offset < part.end && part.start < write.offset + write.length,
        Record::Flush => false,
    };
    let firm = (0..durable).filter(|&index| inside(index)).count();
    let rest = (durable..cut.at).filter(|&index| inside(index));
    let rest = rest.filter(|index| cut.lost.binary_search(index).is_err());
    let torn = cut.torn.filter(|&(index, _)| inside(index));
    (firm, rest.collect(), torn)
}

/// The partition table as stage1 takes it: one good copy is enough.
fn table(disk: &Path) -> Result<(String, bool)> {
    let table = formats::gpt::read(&File::open(disk)?, None)?;
    let count = table.partitions().len();
    ensure!(count == 8, "{count} partitions");
    let cas = table.by_label("cas").context("no partition cas")?;
    let size = if cas.end() - cas.start > 1 << 30 {
        "grown"
    } else {
        "small"
    };
    let copies = if table.defects.is_empty() {
        "whole"
    } else {
        "one copy"
    };
    Ok((format!("{size}, {copies}"), true))
}

/// Checks an ext4 as the machine will, and then that nothing is wrong with it. `None`: pristine.
pub(crate) fn checked(file: &Path, label: &str) -> Result<Option<String>> {
    let mut found = [0; 16];
    File::open(file)?.read_exact_at(&mut found, 1024 + 120)?;
    let found = String::from_utf8_lossy(&found);
    let found = found.trim_end_matches('\0');
    if found == "larder-pristine" {
        return Ok(None);
    }
    ensure!(found == label, "its label is {found:?}");
    let name = file.display().to_string();
    let (mut code, mut words) = run("e2fsck", "e2fsprogs", &["-p", &name])?;
    if code == 8 {
        // A torn superblock: stage1 and `larder-cas` take its copy.
        let copy = ["-p", "-b", "32768", "-B", "4096", &name];
        (code, words) = run("e2fsck", "e2fsprogs", &copy)?;
    }
    ensure!(code <= 1, "e2fsck -p: {code}: {words}");
    let (code, words) = run("e2fsck", "e2fsprogs", &["-fn", &name])?;
    ensure!(code == 0, "it stays damaged: {words}");
    Ok(Some("made".into()))
}

/// Whether bytes are somewhere in the first part of others, at a multiple of four: all records are.
fn holds(content: &[u8], bytes: &[u8]) -> bool {
    let content = &content[..content.len().min(8 << 20)];
    (0..content.len().saturating_sub(bytes.len()))
        .step_by(4)
        .any(|at| content[at..].starts_with(bytes))
}

/// A file of an ext4; empty if it is not there.
fn read(image: &Path, path: &str) -> Result<Vec<u8>> {
    let program = find_program("debugfs", "e2fsprogs")?;
    let ask = format!("cat {path}");
    let output = Command::new(program)
        .args(["-R", &ask])
        .arg(image)
        .output()?;
    Ok(output.stdout)
}

/// The boot images on an ESP, by name.
fn images(disk: &Path, esp: &Range<u64>) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = File::open(disk)?;
    let region = formats::region::Region::new(&file, esp.start, esp.end - esp.start);
    let volume = formats::fat::Volume::open(&region, formats::fat::Limits::default())?;
    let mut images = BTreeMap::new();
    for entry in volume.list()? {
        if let Some(name) = entry.path.strip_prefix("/EFI/Linux/") {
            images.insert(name.to_owned(), volume.content(&entry)?);
        }
    }
    Ok(images)
}

/// Runs a tool of the host; gives its exit status and what it says.
pub(crate) fn run(program: &str, package: &'static str, args: &[&str]) -> Result<(i32, String)> {
    let path: PathBuf = find_program(program, package)?;
    let output = Command::new(path).args(args).env("LC_ALL", "C").output()?;
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    let code = output
        .status
        .code()
        .with_context(|| format!("{program} was killed"))?;
    Ok((code, format!("{out}{err}")))
}
