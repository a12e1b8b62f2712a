//! Where Debian's archives are: from `--mirror`, or from apt's own configuration of this host.
//!
//! Only Debian's archives count. A source is recognised as one by its path, which ends in
//! `/debian` or `/debian-security` (snapshots: followed by a time stamp), by a suite that Debian
//! has and by the component `main` (Docker's path ends in `/debian` too); its own suites are
//! otherwise ignored, because a mirror of bookworm has trixie too.
//! `trusted=yes` is never honoured. Not supported: `mirror+`, `cdrom`, `file` and other methods
//! beside http and https, and credentials in auth.conf.

use std::path::{Path, PathBuf};

use crate::apt_files::{Entry, parse_deb822, parse_list};
use crate::error::{Error, Result};
use crate::url::Url;

/// Debian's two archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `debian`: releases, updates, backports.
    Main,
    /// `debian-security`.
    Security,
}

impl Kind {
    /// The archive that holds a suite.
    pub fn of_suite(suite: &str) -> Self {
        if suite.ends_with("-security") {
            Kind::Security
        } else {
            Kind::Main
        }
    }
}

/// One copy of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Which.
    pub kind: Kind,
    /// The folder that holds `dists` and `pool`.
    pub url: Url,
    /// Keyring from `Signed-By`; `None`: Debian's own.
    pub keyring: Option<PathBuf>,
}

/// The archives to use, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    archives: Vec<Archive>,
    /// Sources that were seen and left out, with the reason.
    ignored: Vec<String>,
}

impl Sources {
    /// `--mirror` if given, else apt's configuration under `/`.
    pub fn discover(mirrors: &[String]) -> Result<Self> {
        if mirrors.is_empty() {
            Self::from_host(Path::new("/"))
        } else {
            Self::from_mirrors(mirrors)
        }
    }

    /// Uses these URLs; one that ends in `debian-security` is the security archive, which is
    /// otherwise the neighbour of that name of each other one.
    pub fn from_mirrors(mirrors: &[String]) -> Result<Self> {
        let mut sources = Self {
            archives: Vec::new(),
            ignored: Vec::new(),
        };
        for mirror in mirrors {
            let url = Url::parse(mirror)?;
            let kind = if split(&url).0.ends_with("-security") {
                Kind::Security
            } else {
                Kind::Main
            };
            sources.add(Archive {
                kind,
                url,
                keyring: None,
            });
        }
        let security = sources.archives.iter().any(|a| a.kind == Kind::Security);
        sources.finish(if security {
            "--mirror, which names a security archive only"
        } else {
            "--mirror"
        })
    }

    /// Reads `etc/apt/sources.list` and `etc/apt/sources.list.d/*.{list,sources}` under `root`.
    pub fn from_host(root: &Path) -> Result<Self> {
        let apt = root.join("etc/apt");
        let mut files = vec![apt.join("sources.list")];
        let folder = apt.join("sources.list.d");
        if let Ok(entries) = std::fs::read_dir(&folder) {
            let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
            found.sort();
            files.extend(found);
        }
        let mut sources = Self {
            archives: Vec::new(),
            ignored: Vec::new(),
        };
        for path in files {
            let deb822 = match path.extension().and_then(|e| e.to_str()) {
                Some("list") => false,
                Some("sources") => true,
                _ => continue,
            };
            let text = match std::fs::read(&path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io(&path, "cannot read")(e)),
            };
            let entries = if deb822 {
                parse_deb822(&text)
            } else {
                parse_list(&text)
            };
            let shown = path
                .strip_prefix(root)
                .map_or(path.clone(), |p| Path::new("/").join(p));
            for entry in entries.map_err(|(line, reason)| Error::Syntax {
                what: shown.display().to_string(),
                line,
                reason,
            })? {
                sources.add_entry(entry, &shown);
            }
        }
        sources.finish("/etc/apt/sources.list and /etc/apt/sources.list.d")
    }

    fn add_entry(&mut self, entry: Entry, file: &Path) {
        for uri in &entry.uris {
            match archive(uri, &entry) {
                Ok(archive) => self.add(archive),
                Err(reason) => self.ignored.push(format!("{}: {reason}", file.display())),
            }
        }
    }

    fn add(&mut self, archive: Archive) {
        let same = |a: &Archive| {
            (a.kind, &a.url.authority(), a.url.folder())
                == (archive.kind, &archive.url.authority(), archive.url.folder())
        };
        if !self.archives.iter().any(same) {
            self.archives.push(archive);
        }
    }

    /// Adds the security archives that nobody named: the neighbours of the main ones.
    fn finish(mut self, searched: &str) -> Result<Self> {
        if !self.archives.iter().any(|a| a.kind == Kind::Security) {
            for archive in self.archives.clone() {
                let url = neighbour(&archive.url);
                let keyring = archive.keyring;
                self.add(Archive {
                    kind: Kind::Security,
                    url,
                    keyring,
                });
            }
        }
        if !self.archives.iter().any(|a| a.kind == Kind::Main) {
            return Err(Error::NoSources {
                searched: searched.to_owned(),
                ignored: self.ignored,
            });
        }
        Ok(self)
    }

    /// Uses this keyring for all archives.
    pub fn with_keyring(mut self, keyring: &Path) -> Self {
        for archive in &mut self.archives {
            archive.keyring = Some(keyring.to_owned());
        }
        self
    }

    /// All archives, in order of preference.
    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    /// Sources of the host that were left out, with the reason.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The archives that hold a suite.
    pub(crate) fn of_suite(&self, suite: &str) -> impl Iterator<Item = &Archive> {
        let kind = Kind::of_suite(suite);
        self.archives.iter().filter(move |a| a.kind == kind)
    }

    /// Where a file of the pool may be: first in the archive of its suite, then in all others.
    pub(crate) fn candidates(&self, suite: &str, path: &str) -> Vec<Url> {
        let kind = Kind::of_suite(suite);
        let (own, other): (Vec<_>, Vec<_>) = self.archives.iter().partition(|a| a.kind == kind);
        own.into_iter()
            .chain(other)
            .map(|a| a.url.join(path))
            .collect()
    }
}

/// The archive that one source of apt's is, or why it is none of Debian's.
fn archive(uri: &str, entry: &Entry) -> Result<Archive, String> {
    let url = Url::parse(uri).map_err(|error| match error {
        Error::BadUrl { url, reason } => format!("{url} ({reason})"),
        other => other.to_string(),
    })?;
    let suites = entry.suites.join(" ");
    let (folder, _) = split(&url);
    let security_only = entry
        .suites
        .iter()
        .all(|s| Kind::of_suite(s) == Kind::Security);
    let kind = match folder.rsplit('/').next() {
        Some("debian") => Kind::Main,
        Some("debian-security") => Kind::Security,
        // The security archive's own host has it at its root too.
        Some("") if security_only => Kind::Security,
        _ => {
            return Err(format!(
                "{url} (its path ends neither in /debian nor in /debian-security)"
            ));
        }
    };
    if !entry.suites.iter().any(|s| is_debian_suite(s)) {
        return Err(format!("{url} (`{suites}` is no suite of Debian)"));
    }
    if !entry.components.iter().any(|c| c == "main") {
        return Err(format!("{url} (without the component main)"));
    }
    Ok(Archive {
        kind,
        url,
        keyring: entry.signed_by.clone(),
    })
}

/// Path without the time stamp of a snapshot (`/20250520T000000Z`), and that.
fn split(url: &Url) -> (&str, &str) {
    let folder = url.folder();
    let stamp = folder
        .len()
        .checked_sub(17)
        .and_then(|at| folder.get(at..))
        .filter(|stamp| {
            let bytes = stamp.as_bytes();
            stamp.starts_with('/')
                && stamp.ends_with('Z')
                && bytes[9] == b'T'
                && bytes.iter().filter(|b| b.is_ascii_digit()).count() == 14
        });
    let stamp = stamp.unwrap_or("");
    (&folder[..folder.len() - stamp.len()], stamp)
}

/// The security archive beside a main one.
fn neighbour(url: &Url) -> Url {
    let (folder, stamp) = split(url);
    let parent = folder.rfind('/').map_or("", |at| &folder[..at]);
    Url {
        path: format!("{parent}/debian-security{stamp}"),
        ..url.clone()
    }
}

/// Whether Debian has such a suite.
fn is_debian_suite(suite: &str) -> bool {
    let name = suite.split(['-', '/']).next().unwrap_or("");
    matches!(
        name,
        "buster"
            | "bullseye"
            | "bookworm"
            | "trixie"
            | "forky"
            | "duke"
            | "sid"
            | "stable"
            | "oldstable"
            | "oldoldstable"
            | "testing"
            | "unstable"
            | "experimental"
    )
}

/// Fuzz target: both parsers take any text.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = parse_list(&text);
    for entry in parse_deb822(&text).unwrap_or_default() {
        assert!(!entry.uris.is_empty() && !entry.suites.is_empty());
        let mut sources = Sources {
            archives: Vec::new(),
            ignored: Vec::new(),
        };
        sources.add_entry(entry, Path::new("/fuzz"));
        let _ = sources.finish("fuzz");
    }
}
