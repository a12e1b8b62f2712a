//! Finding what changed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use formats::tree::{Node, Tree};
use packages::{stem, version};
use serde::Serialize;

use super::lines;
use super::settings::{self, SettingChange};
use crate::image::{Description, Package, Units, units};
use crate::manifest::{File, Type};

/// Longer texts are not shown line by line.
const MOST_TEXT: u64 = 64 << 10;

/// What changed from one image to another. The fields and their order are those of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The old image.
    pub old: Source,
    /// The new image.
    pub new: Source,
    /// Kernel, before and now.
    pub kernel: Option<(String, String)>,
    /// Words that the kernel's command line lost (`roothash=` does not count).
    pub cmdline_removed: Vec<String>,
    /// Words that it got.
    pub cmdline_added: Vec<String>,
    /// Compiler of our binaries, before and now.
    pub compiler: Option<(String, String)>,
    /// Sections of the boot image that differ, but for those with lines of their own here.
    pub boot_sections: Vec<String>,
    /// Whether PCR 11 differs, so that what is sealed to it opens no more.
    pub pcr11: bool,
    /// Files of the ESP (boot images apart) that were added, removed or changed.
    pub esp: Vec<String>,
    /// Partitions of another size: what for, before, now, in bytes; 0 for none.
    pub partitions: Vec<(String, u64, u64)>,
    /// Packages.
    pub packages: Vec<PackageChange>,
    /// Units.
    pub units: UnitChanges,
    /// Settings.
    pub settings: Vec<SettingChange>,
    /// Files by their origin.
    pub files: BTreeMap<String, Vec<FileChange>>,
    /// Whether contents could be looked at; of a manifest they cannot.
    pub contents: bool,
}

/// One side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Where it was read.
    pub path: String,
    /// Id and version of the image.
    pub name: String,
    /// Date of the lock, seconds since 1970.
    pub clock: Option<i64>,
    /// Root hash.
    pub root_hash: String,
    /// Bytes of the files in the root.
    pub bytes: u64,
    /// Names in the root.
    pub names: u64,
}

/// A package that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name, the new one if it changed with the version.
    pub name: String,
    /// Version before; `None` if it is new.
    pub old: Option<String>,
    /// Version now; `None` if it is gone.
    pub new: Option<String>,
    /// Whether the new version is the older one.
    pub older: bool,
    /// Bytes that its files take more (or less) now.
    pub growth: i64,
}

/// Units that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnitChanges {
    /// Start by themselves now: unit, what wants it.
    pub starts: Vec<(String, String)>,
    /// No longer do.
    pub starts_no_more: Vec<(String, String)>,
    /// Masked now.
    pub masked: Vec<String>,
    /// No longer masked.
    pub unmasked: Vec<String>,
}

/// A file that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// What is new about it; `added` or `removed` alone, or what differs.
    pub what: Vec<Attribute>,
    /// Bytes before and now.
    pub size: (u64, u64),
    /// Of a text: lines that it lost (`- …`) and got (`+ …`).
    pub lines: Vec<String>,
}

/// What differs in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
    /// It is of another type: before, now.
    Type(Type, Type),
    /// Its content.
    Content,
    /// Where the link leads, before and now.
    Target(String, String),
    /// Its permissions, before and now.
    Mode(String, String),
    /// Its owner and group, before and now.
    Owner(String, String),
    /// Its extended attributes (capabilities).
    Xattrs,
}

impl Changes {
    /// Compares two images.
    pub fn between(old: &Description, new: &Description) -> Self {
        let trees = old.root.as_ref().zip(new.root.as_ref());
        let pair = |a: &str, b: &str| (a != b).then(|| (a.to_string(), b.to_string()));
        let (cmdline_removed, cmdline_added) = words(&old.cmdline, &new.cmdline);
        let compiler = match (&old.compiler, &new.compiler) {
            (Some(a), Some(b)) => pair(a, b),
            _ => None,
        };
        Self {
            old: source(old),
            new: source(new),
            kernel: pair(&old.kernel, &new.kernel),
            cmdline_removed,
            cmdline_added,
            compiler,
            boot_sections: boot_sections(old, new),
            // The root hash alone changes it.
            pcr11: old.pcr11 != new.pcr11,
            esp: differing(&old.esp, &new.esp)
                .into_iter()
                .map(|(path, what)| format!("{path} {what}"))
                .collect(),
            partitions: partitions(old, new),
            packages: packages(old, new),
            units: trees.map_or_else(UnitChanges::default, |(old, new)| {
                unit_changes(&units(old), &units(new))
            }),
            settings: trees.map_or_else(Vec::new, |(old, new)| settings::changes(old, new)),
            files: files(old, new),
            contents: trees.is_some(),
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.old.name == self.new.name
            && self.old.root_hash == self.new.root_hash
            && !self.pcr11
            && self.kernel.is_none()
            && self.cmdline_removed.is_empty()
            && self.cmdline_added.is_empty()
            && self.compiler.is_none()
            && self.boot_sections.is_empty()
            && self.esp.is_empty()
            && self.partitions.is_empty()
            && self.packages.is_empty()
            && self.files.is_empty()
    }
}

fn source(side: &Description) -> Source {
    Source {
        path: side.source.clone(),
        name: format!("{} {}", side.id, side.version),
        clock: side.clock,
        root_hash: side.root_hash.to_string(),
        bytes: side.bytes(),
        names: side.files.len() as u64,
    }
}

/// Words that a command line lost and got, in their order.
fn words(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let split = |text: &str| -> Vec<String> {
        let words = text.split_ascii_whitespace();
        let words = words.filter(|word| !word.starts_with("roothash="));
        words.map(str::to_string).collect()
    };
    let (old, new) = (split(old), split(new));
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|word| !b.contains(word)).cloned().collect()
    };
    (only(&old, &new), only(&new, &old))
}

fn boot_sections(old: &Description, new: &Description) -> Vec<String> {
    if old.sections.is_empty() || new.sections.is_empty() {
        return Vec::new();
    }
    let told = [".cmdline", ".osrel", ".uname", ".pcrsig"];
    differing(&old.sections, &new.sections)
        .into_iter()
        .filter(|(name, _)| !told.contains(&name.as_str()))
        .map(|(name, what)| format!("{name} {what}"))
        .collect()
}

/// Keys that were `added`, `removed` or `changed`.
fn differing<V: PartialEq>(
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
) -> Vec<(String, &'static str)> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let what = match (old.get(key), new.get(key)) {
                (None, _) => "added",
                (_, None) => "removed",
                (a, b) if a != b => "changed",
                _ => return None,
            };
            Some((key.clone(), what))
        })
        .collect()
}

fn partitions(old: &Description, new: &Description) -> Vec<(String, u64, u64)> {
    let size = |side: &Description, name: &str| side.partitions.get(name).copied().unwrap_or(0);
    differing(&old.partitions, &new.partitions)
        .into_iter()
        .map(|(name, _)| (size(old, &name), size(new, &name), name))
        .map(|(old, new, name)| (name, old, new))
        .collect()
}

fn packages(old: &Description, new: &Description) -> Vec<PackageChange> {
    // Kernels carry their version in their names.
    let key = |name: &str, package: &Package| match name.starts_with("linux-") {
        true => stem(name, &package.version),
        false => name.to_string(),
    };
    let by_key = |side: &Description| -> BTreeMap<String, (String, Package)> {
        side.packages
            .iter()
            .map(|(name, package)| (key(name, package), (name.clone(), package.clone())))
            .collect()
    };
    let sizes = |side: &Description| -> BTreeMap<String, i64> {
        let mut out = BTreeMap::new();
        for file in side.files.values() {
            if let Some(name) = file.origin.strip_prefix("package ") {
                *out.entry(name.to_string()).or_default() += file.size as i64;
            }
        }
        out
    };
    let (sizes_old, sizes_new) = (sizes(old), sizes(new));
    let (old, new) = (by_key(old), by_key(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let (a, b) = (old.get(key), new.get(key));
            let same = a.zip(b).is_some_and(|((_, a), (_, b))| {
                let hash = |package: &Package| package.source.as_ref().map(|(_, hash)| *hash);
                // Where only one side knows the hash, the version has to do.
                let hashes = hash(a).zip(hash(b));
                a.version == b.version && hashes.is_none_or(|(a, b)| a == b)
            });
            if same {
                return None;
            }
            let size = |sizes: &BTreeMap<String, i64>, side: Option<&(String, Package)>| {
                side.and_then(|(name, _)| sizes.get(name).copied())
                    .unwrap_or(0)
            };
            let versions = a.zip(b).map(|((_, a), (_, b))| (&a.version, &b.version));
            Some(PackageChange {
                name: b.or(a).map(|(name, _)| name.clone())?,
                old: a.map(|(_, package)| package.version.clone()),
                new: b.map(|(_, package)| package.version.clone()),
                older: versions.is_some_and(|(a, b)| version::compare(a, b) == Ordering::Greater),
                growth: size(&sizes_new, b) - size(&sizes_old, a),
            })
        })
        .collect()
}

fn unit_changes(old: &Units, new: &Units) -> UnitChanges {
    let flat = |units: &Units| -> BTreeSet<(String, String)> {
        let by = units.enabled.iter();
        by.flat_map(|(by, units)| units.iter().map(move |unit| (unit.clone(), by.clone())))
            .collect()
    };
    let (starts, started) = (flat(new), flat(old));
    UnitChanges {
        starts: starts.difference(&started).cloned().collect(),
        starts_no_more: started.difference(&starts).cloned().collect(),
        masked: new.masked.difference(&old.masked).cloned().collect(),
        unmasked: old.masked.difference(&new.masked).cloned().collect(),
    }
}

fn files(old: &Description, new: &Description) -> BTreeMap<String, Vec<FileChange>> {
    let mut out: BTreeMap<String, Vec<FileChange>> = BTreeMap::new();
    let paths: BTreeSet<_> = old.files.keys().chain(new.files.keys()).collect();
    for path in paths {
        let (a, b) = (old.files.get(path), new.files.get(path));
        let what = match (a, b) {
            (None, _) => vec![Attribute::Added],
            (_, None) => vec![Attribute::Removed],
            (Some(a), Some(b)) => attributes(a, b),
        };
        if what.is_empty() {
            continue;
        }
        let lines = match what.contains(&Attribute::Content) && !settings::covers(path) {
            true => text_lines(old.root.as_ref(), new.root.as_ref(), path),
            false => Vec::new(),
        };
        let size = |file: Option<&File>| file.map_or(0, |file| file.size);
        // Where only one side knows the origin, that counts.
        let origins = [b, a].into_iter().flatten().map(|file| &file.origin);
        let origin = origins.into_iter().find(|origin| !origin.is_empty());
        out.entry(origin.cloned().unwrap_or_default())
            .or_default()
            .push(FileChange {
                path: path.clone(),
                what,
                size: (size(a), size(b)),
                lines,
            });
    }
    out
}

fn attributes(a: &File, b: &File) -> Vec<Attribute> {
    let mut out = Vec::new();
    if a.kind != b.kind {
        out.push(Attribute::Type(a.kind, b.kind));
    } else {
        if a.sha256 != b.sha256 {
            out.push(Attribute::Content);
        }
        if a.target != b.target {
            let text = |file: &File| file.target.clone().unwrap_or_default();
            out.push(Attribute::Target(text(a), text(b)));
        }
    }
    if a.mode != b.mode {
        out.push(Attribute::Mode(a.mode.to_string(), b.mode.to_string()));
    }
    let owner = |file: &File| format!("{}:{}", file.uid, file.gid);
    if owner(a) != owner(b) {
        out.push(Attribute::Owner(owner(a), owner(b)));
    }
    if a.xattrs != b.xattrs {
        out.push(Attribute::Xattrs);
    }
    out
}

fn text_lines(old: Option<&Tree>, new: Option<&Tree>, path: &str) -> Vec<String> {
    // Of several names of a file some are links; those have no lines here.
    let text = |tree: Option<&Tree>| -> Option<String> {
        let content = tree?.get(path).and_then(Node::content)?;
        let small = content.len() as u64 <= MOST_TEXT && !content.contains(&0);
        small.then(|| String::from_utf8(content.to_vec()).ok())?
    };
    let both = text(old).zip(text(new));
    both.and_then(|(old, new)| lines::changed(&old, &new))
        .unwrap_or_default()
}
