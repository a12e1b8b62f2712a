//! Where Debian's archives are: from `--mirror`, or from apt's own configuration of this host.
//!
//! Only Debian's archives count. A source is recognised as one by its path, which ends in
//! `/debian` or `/debian-security` (snapshots: followed by a time stamp), and by a suite that
//! Debian has; its own suites are otherwise ignored, because a mirror of bookworm has trixie too.
//! `trusted=yes` is never honoured. Not supported: `mirror+`, `cdrom`, `file` and other methods
//! beside http and https, and credentials in auth.conf.

use std::path::{Path, PathBuf};

use crate::deb822;
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
            let kind = if base(&url).ends_with("-security") {
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
        sources.finish("--mirror".to_owned())
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
        sources.finish(format!(
            "apt's configuration ({}, {})",
            "/etc/apt/sources.list", "/etc/apt/sources.list.d"
        ))
    }

    fn add_entry(&mut self, entry: Entry, file: &Path) {
        for uri in &entry.uris {
            let reason = match Url::parse(uri) {
                Err(Error::BadUrl { url, reason }) => Err(format!("{url} ({reason})")),
                Err(other) => Err(other.to_string()),
                Ok(url) => match kind_of_path(&url) {
                    None => Err(format!(
                        "{url} (not a Debian archive: its path ends neither in /debian nor in /debian-security)"
                    )),
                    Some(_) if !entry.suites.iter().any(|s| is_debian_suite(s)) => Err(format!(
                        "{url} (`{}` is no suite of Debian)",
                        entry.suites.join(" ")
                    )),
                    Some(kind) => Ok(Archive {
                        kind,
                        url,
                        keyring: entry.signed_by.clone(),
                    }),
                },
            };
            match reason {
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
    fn finish(mut self, searched: String) -> Result<Self> {
        if !self.archives.iter().any(|a| a.kind == Kind::Security) {
            for archive in self.archives.clone() {
                let base = base(&archive.url);
                let folder = archive.url.folder();
                let parent = &folder[..folder.len() - base.len()];
                let path = format!("{}debian-security", parent);
                let path = if path.starts_with('/') {
                    path
                } else {
                    format!("/{path}")
                };
                self.add(Archive {
                    kind: Kind::Security,
                    url: Url {
                        path,
                        ..archive.url.clone()
                    },
                    keyring: archive.keyring.clone(),
                });
            }
        }
        if !self.archives.iter().any(|a| a.kind == Kind::Main) {
            return Err(Error::NoSources {
                searched,
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

/// Last component of the path.
fn base(url: &Url) -> &str {
    url.folder().rsplit('/').next().unwrap_or("")
}

/// Which of Debian's archives a URL names by its path.
fn kind_of_path(url: &Url) -> Option<Kind> {
    let mut components = url.folder().rsplit('/');
    let mut last = components.next()?;
    // snapshots: …/debian/20250520T000000Z
    if last.len() == 16 && last.ends_with('Z') && last.as_bytes()[8] == b'T' {
        last = components.next()?;
    }
    match last {
        "debian" => Some(Kind::Main),
        "debian-security" => Some(Kind::Security),
        _ => None,
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

/// One source as apt's files name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    signed_by: Option<PathBuf>,
}

/// Only a path to a keyring can be used; fingerprints and keys in line fall back to Debian's own.
fn signed_by(value: &str) -> Option<PathBuf> {
    let first = value
        .split([',', ' ', '\n'])
        .find(|part| !part.is_empty())?;
    first.starts_with('/').then(|| PathBuf::from(first))
}

/// Parses the one-line format (sources.list(5)); errors are `(line, reason)`.
fn parse_list(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else {
            if line.is_empty() {
                continue;
            }
            return Err((
                number + 1,
                format!("`{line}` is no source (deb URI SUITE COMPONENT…)"),
            ));
        };
        let mut rest = rest.trim();
        if kind == "deb-src" {
            continue;
        }
        if kind != "deb" {
            return Err((
                number + 1,
                format!("`{kind}` is no type of source (deb, deb-src)"),
            ));
        }
        let mut keyring = None;
        if let Some(options) = rest.strip_prefix('[') {
            let Some((options, tail)) = options.split_once(']') else {
                return Err((number + 1, "`[` without `]`".to_owned()));
            };
            rest = tail.trim();
            for option in options.split_whitespace() {
                if let Some(("signed-by", value)) = option.split_once('=') {
                    keyring = signed_by(value);
                }
            }
        }
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            return Err((number + 1, "a source needs a URI and a suite".to_owned()));
        };
        entries.push(Entry {
            uris: vec![uri.to_owned()],
            suites: vec![suite.to_owned()],
            signed_by: keyring,
        });
    }
    Ok(entries)
}

/// Parses the deb822 format; errors are `(line, reason)`.
fn parse_deb822(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let mut entries = Vec::new();
    for stanza in deb822::stanzas(text) {
        // A slice of `text`, so its distance is the position.
        let offset = stanza.as_ptr() as usize - text.as_ptr() as usize;
        let line = text[..offset].bytes().filter(|b| *b == b'\n').count() + 1;
        if stanza.lines().all(|l| l.trim_start().starts_with('#')) {
            continue;
        }
        for field in deb822::fields(stanza) {
            if let Err(text) = field {
                return Err((
                    line,
                    format!("`{text}` is neither a field nor a continuation"),
                ));
            }
        }
        let words = |name| -> Vec<String> {
            let value = deb822::field(stanza, name).unwrap_or("");
            value
                .lines()
                .filter(|l| !l.trim_start().starts_with('#'))
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect()
        };
        let enabled = deb822::field(stanza, "Enabled").unwrap_or("yes");
        if matches!(
            enabled.to_ascii_lowercase().as_str(),
            "no" | "false" | "without" | "off" | "disable"
        ) {
            continue;
        }
        if !words("Types").iter().any(|t| t == "deb") {
            continue;
        }
        let (uris, suites) = (words("URIs"), words("Suites"));
        if uris.is_empty() || suites.is_empty() {
            return Err((line, "a source needs URIs and Suites".to_owned()));
        }
        let signed_by = deb822::field(stanza, "Signed-By").and_then(signed_by);
        entries.push(Entry {
            uris,
            suites,
            signed_by,
        });
    }
    Ok(entries)
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
        let _ = sources.finish("fuzz".to_owned());
    }
}
