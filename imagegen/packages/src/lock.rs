//! `configs/packages.lock`: what was resolved, by hash; a text that people can read and diff.
//!
//! TOML with one record a line. Written sorted, so the same content is always the same bytes.
//!
//! ```toml
//! version = 1
//! architecture = "amd64"
//! date = 1795399773 # 2026-11-23 02:09:33 UTC
//! request = "…SHA-256 of the request…"
//! suites = [
//!   { name = "trixie", date = 1795252544, sha256 = "…of InRelease…" },
//! ]
//! packages = [
//!   { role = "system", name = "bash", version = "5.2.37-2", arch = "amd64", suite = "trixie", size = 1, sha256 = "…", path = "pool/…" },
//! ]
//! ```

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::date;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::index::is_pool_path;

/// Format that this code reads and writes.
const VERSION: u32 = 1;

/// What a package is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Unpacked into the root.
    System,
    /// Part of the kernel of this name.
    Kernel(String),
    /// Built against, not installed.
    Build,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::System => f.write_str("system"),
            Role::Kernel(name) => write!(f, "kernel:{name}"),
            Role::Build => f.write_str("build"),
        }
    }
}

impl Serialize for Role {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match (text.as_str(), text.strip_prefix("kernel:")) {
            ("system", _) => Ok(Role::System),
            ("build", _) => Ok(Role::Build),
            (_, Some(name)) if !name.is_empty() => Ok(Role::Kernel(name.to_owned())),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is no role (system, build, kernel:NAME)"
            ))),
        }
    }
}

/// One package, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What it is for.
    pub role: Role,
    /// Name of the package.
    pub name: String,
    /// Version of the package.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// Suite that it was found in.
    pub suite: String,
    /// Bytes of the .deb.
    pub size: u64,
    /// SHA-256 of the .deb.
    pub sha256: Digest,
    /// Path in the archive, `pool/…`.
    pub path: String,
}

/// A suite as it was when the lock was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSuite {
    /// Name, such as `trixie-security`.
    pub name: String,
    /// Date of its InRelease, seconds since 1970.
    pub date: u64,
    /// SHA-256 of its InRelease.
    pub sha256: Digest,
}

/// The lock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format of the file, 1.
    version: u32,
    /// Architecture of the packages.
    pub architecture: String,
    /// SOURCE_DATE_EPOCH of everything that is made from this lock: the date of the newest
    /// InRelease, seconds since 1970.
    pub date: u64,
    /// [`crate::Request::digest`] of the request that was resolved.
    pub request: Digest,
    /// The suites.
    pub suites: Vec<LockedSuite>,
    /// The packages: system, kernels, build, each sorted by name.
    pub packages: Vec<Package>,
}

impl Lock {
    pub(crate) fn new(
        architecture: &str,
        request: Digest,
        suites: Vec<LockedSuite>,
        packages: Vec<Package>,
    ) -> Self {
        let date = suites.iter().map(|s| s.date).max().unwrap_or(0);
        let mut lock = Self {
            version: VERSION,
            architecture: architecture.to_owned(),
            date,
            request,
            suites,
            packages,
        };
        lock.sort();
        lock
    }

    fn sort(&mut self) {
        self.packages
            .sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name)));
    }

    /// Packages of one role, sorted by name.
    pub fn of_role<'a>(&'a self, role: &Role) -> impl Iterator<Item = &'a Package> + use<'a> {
        let role = role.clone();
        self.packages.iter().filter(move |p| p.role == role)
    }

    /// Packages that are unpacked into the root, sorted by name.
    pub fn system(&self) -> impl Iterator<Item = &Package> {
        self.of_role(&Role::System)
    }

    /// Packages to build against.
    pub fn build(&self) -> impl Iterator<Item = &Package> {
        self.of_role(&Role::Build)
    }

    /// Parts of one kernel; empty if the lock has none of this name.
    pub fn kernel(&self, name: &str) -> impl Iterator<Item = &Package> {
        self.of_role(&Role::Kernel(name.to_owned()))
    }

    /// Names of the kernels in the lock, sorted.
    pub fn kernels(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .packages
            .iter()
            .filter_map(|p| match &p.role {
                Role::Kernel(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        names.dedup();
        names
    }

    /// Bytes of all .debs.
    pub fn download_size(&self) -> u64 {
        self.packages
            .iter()
            .fold(0, |sum, p| sum.saturating_add(p.size))
    }

    /// Reads a lock file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Lock {
                path: path.to_owned(),
                reason: "there is no lock yet: `imagegen lock` makes it".to_owned(),
            },
            std::io::ErrorKind::InvalidData => Error::Lock {
                path: path.to_owned(),
                reason: "not UTF-8".to_owned(),
            },
            _ => Error::io(path, "cannot read")(e),
        })?;
        Self::parse(&text).map_err(|reason| Error::Lock {
            path: path.to_owned(),
            reason,
        })
    }

    /// Parses a lock; the error is a sentence with line and column where it is about the format.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A newer format is told before its unknown keys are.
        #[derive(Deserialize)]
        struct Format {
            version: Option<toml::Value>,
        }
        let conflict = text
            .lines()
            .position(|l| l.starts_with("<<<<<<<") || l.starts_with(">>>>>>>"));
        if let Some(line) = conflict {
            return Err(format!(
                "line {}: an unresolved merge conflict; `imagegen lock` makes the file anew",
                line + 1
            ));
        }
        let format: Format =
            toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        match format.version {
            Some(toml::Value::Integer(1)) => {}
            Some(other) => {
                return Err(format!(
                    "format {other}, but this program reads {VERSION}: use the imagegen that wrote it, or make it anew with `imagegen lock`"
                ));
            }
            None => return Err("no `version`: not a lock file".to_owned()),
        }
        let mut lock: Self =
            toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        lock.validate()?;
        lock.sort();
        Ok(lock)
    }

    fn validate(&self) -> Result<(), String> {
        let word = |text: &str, more: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
        };
        if !word(&self.architecture, "-") {
            return Err(format!(
                "architecture {:?}: not a Debian architecture",
                self.architecture
            ));
        }
        if let Some(suite) = self.suites.iter().find(|s| !word(&s.name, "-._")) {
            return Err(format!("suite {:?}: not a name of a suite", suite.name));
        }
        let mut seen = HashSet::new();
        for p in &self.packages {
            let wrong = |what: &str| Err(format!("package `{}` ({}): {what}", p.name, p.role));
            if let Role::Kernel(kernel) = &p.role
                && !word(kernel, "+-._")
            {
                return wrong("not a name of a kernel");
            }
            if !word(&p.name, "+-.") {
                return wrong("not a name of a Debian package");
            }
            if !word(&p.version, "+-.~:") {
                return wrong("not a Debian version");
            }
            if p.arch != "all" && p.arch != self.architecture {
                return wrong("architecture is neither `all` nor that of the lock");
            }
            if !is_pool_path(&p.path) || !p.path.ends_with(".deb") {
                return wrong("path is no `pool/….deb`");
            }
            if p.size == 0 {
                return wrong("size is 0");
            }
            if !self.suites.iter().any(|s| s.name == p.suite) {
                return wrong("its suite is not in the list of suites");
            }
            if !seen.insert((&p.role, &p.name)) {
                return wrong("occurs twice");
            }
        }
        if self.packages.is_empty() {
            return Err("no packages".to_owned());
        }
        Ok(())
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        use fmt::Write as _;
        let mut out = String::with_capacity(self.packages.len() * 320);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# Made by `imagegen lock`; `imagegen lock --update` brings it up to date. Not for editing by hand.\n\
             version = {VERSION}\narchitecture = {:?}\ndate = {} # {}\nrequest = \"{}\"\nsuites = [\n",
            self.architecture,
            self.date,
            date::show(self.date),
            self.request
        );
        for s in &self.suites {
            let _ = writeln!(
                out,
                "  {{ name = {:?}, date = {}, sha256 = \"{}\" }}, # {}",
                s.name,
                s.date,
                s.sha256,
                date::show(s.date)
            );
        }
        out += "]\npackages = [\n";
        for p in &self.packages {
            // Plain ASCII without quotes, which `validate` and the resolver see to: `{:?}` is TOML.
            let _ = writeln!(
                out,
                "  {{ role = {:?}, name = {:?}, version = {:?}, arch = {:?}, suite = {:?}, size = {}, sha256 = \"{}\", path = {:?} }},",
                p.role.to_string(),
                p.name,
                p.version,
                p.arch,
                p.suite,
                p.size,
                p.sha256,
                p.path
            );
        }
        out += "]\n";
        out
    }

    /// Writes the file: a new one beside it, renamed over it, so no half lock is ever left.
    pub fn save(&self, path: &Path) -> Result<()> {
        use std::io::Write as _;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".packages.lock.")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(Error::io(folder, "cannot create a file"))?;
        file.write_all(self.render().as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(Error::io(path, "cannot write"))?;
        file.persist(path)
            .map_err(|e| Error::io(path, "cannot replace")(e.error))?;
        Ok(())
    }
}

/// Fuzz target: what reads is valid, and what is written reads as the same.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(lock) = Lock::parse(&text) {
        assert_eq!(Lock::parse(&lock.render()), Ok(lock));
    }
}
