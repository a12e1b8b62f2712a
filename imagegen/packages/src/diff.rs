//! What changed between two locks, in words.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use crate::date;
use crate::lock::{Lock, Package, Role};
use crate::version;

/// The differences between two locks; displayed as one line each and a summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Packages that are new.
    pub added: Vec<Package>,
    /// Packages that are no longer there.
    pub removed: Vec<Package>,
    /// Packages in another version or with other contents: before, after.
    pub changed: Vec<(Package, Package)>,
    /// Dates of the locks, seconds since 1970.
    pub dates: (u64, u64),
    /// Bytes of all packages, before and after.
    pub download: (u64, u64),
}

impl Lock {
    /// What changed from `self` to `new`.
    pub fn diff(&self, new: &Lock) -> Diff {
        let by_key = |lock: &Lock| -> BTreeMap<(Role, String), Package> {
            lock.packages
                .iter()
                .map(|p| ((p.role.clone(), key(p)), p.clone()))
                .collect()
        };
        let (mut before, after) = (by_key(self), by_key(new));
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for (key, new) in after {
            match before.remove(&key) {
                None => added.push(new),
                // Found in another suite, but the same file.
                Some(old) if old.sha256 == new.sha256 => {}
                Some(old) => changed.push((old, new)),
            }
        }
        Diff {
            added,
            removed: before.into_values().collect(),
            changed,
            dates: (self.date, new.date),
            download: (self.download_size(), new.download_size()),
        }
    }
}

/// What stays the same over versions: a kernel's packages carry theirs in their names.
fn key(package: &Package) -> String {
    match package.role {
        Role::Kernel(_) => stem(&package.name, &package.version),
        _ => package.name.clone(),
    }
}

/// The name of a package without the version that it may carry:
/// `linux-image-6.18.15+deb13-cloud-amd64` of version 6.18.15-1 → `linux-image-cloud-amd64`.
pub fn stem(name: &str, version: &str) -> String {
    let upstream = version.split(['-', '~']).next().unwrap_or("");
    match name.find(upstream).filter(|_| !upstream.is_empty()) {
        // linux-image-, and the flavour after +deb13.
        Some(at) => {
            let rest = name[at..].split_once('-').map_or("", |(_, rest)| rest);
            format!("{}{rest}", &name[..at])
        }
        None => name.to_string(),
    }
}

impl Diff {
    /// Whether no package differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// `47.9 MB`, `120 kB`.
fn bytes(count: u64) -> String {
    match count {
        0..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{} kB", count / 1000),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// `openssh-server` or, for kernels, `kernel 6.12-cloud: linux-image-…`.
fn name(package: &Package) -> String {
    match &package.role {
        Role::System => package.name.clone(),
        Role::Build => format!("{} (to build against)", package.name),
        Role::Kernel(kernel) => format!("kernel {kernel}: {}", package.name),
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (old, new) in &self.changed {
            let note = match version::compare(&old.version, &new.version) {
                Ordering::Less => "",
                Ordering::Equal => ", other contents under the same version",
                Ordering::Greater => ", OLDER than before",
            };
            writeln!(
                f,
                "{} {} → {} ({}{note})",
                name(new),
                old.version,
                new.version,
                new.suite
            )?;
        }
        for package in &self.added {
            writeln!(
                f,
                "added: {} {} ({})",
                name(package),
                package.version,
                package.suite
            )?;
        }
        for package in &self.removed {
            writeln!(f, "removed: {} {}", name(package), package.version)?;
        }
        if self.is_empty() {
            return write!(f, "no package changed");
        }
        let counts = [
            (self.changed.len(), "changed"),
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        let (before, after) = self.download;
        let sign = if after < before { '-' } else { '+' };
        let (all, more) = (bytes(after), bytes(after.abs_diff(before)));
        write!(f, "{}; download {all} ({sign}{more})", counts.join(", "))?;
        let (old, new) = (date::show(self.dates.0), date::show(self.dates.1));
        let day = |date: &str| date.split(' ').next().unwrap_or("").to_owned();
        if old == new {
            Ok(())
        } else {
            write!(f, "; as of {} (was {})", day(&new), day(&old))
        }
    }
}
