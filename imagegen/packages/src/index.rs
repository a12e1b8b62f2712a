//! Packages files: one stanza a package, borrowed from the text.

use crate::deb822;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::relation::{self, Group};

/// One package of an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stanza<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) provides: Option<&'a str>,
    pub(crate) essential: bool,
    /// Number of the suite in [`Universe::suites`].
    pub(crate) suite: usize,
    /// Everything else, read when it is needed.
    pub(crate) text: &'a str,
}

impl<'a> Stanza<'a> {
    /// Value of another field.
    pub(crate) fn field(&self, name: &str) -> Option<&'a str> {
        deb822::field(self.text, name)
    }

    /// A dependency field, parsed; absent is empty.
    pub(crate) fn relations(&self, name: &str) -> Result<Vec<Group<'a>>> {
        let value = self.field(name).unwrap_or("");
        relation::parse(value).map_err(|part| {
            Error::Request(format!(
                "{} {}: `{part}` in {name} is no dependency",
                self.name, self.version
            ))
        })
    }

    /// 0 for required packages to 4 for extra ones.
    fn priority(&self) -> usize {
        let value = self.field("Priority").unwrap_or("");
        let known = ["required", "important", "standard", "optional"];
        known
            .iter()
            .position(|k| *k == value)
            .unwrap_or(known.len())
    }

    /// Name of the source package.
    pub(crate) fn source(&self) -> &'a str {
        match self.field("Source") {
            Some(source) => source.split_whitespace().next().unwrap_or(self.name),
            None => self.name,
        }
    }

    /// Pool path, size and hash; refuses what a lock could not hold.
    pub(crate) fn artifact(&self) -> Result<(&'a str, u64, Digest)> {
        let wrong = |what: &str| {
            Error::Request(format!(
                "{} {}: the index has no usable {what}",
                self.name, self.version
            ))
        };
        let path = self
            .field("Filename")
            .filter(|p| is_pool_path(p))
            .ok_or_else(|| wrong("Filename"))?;
        let size = self
            .field("Size")
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| wrong("Size"))?;
        let digest = self
            .field("SHA256")
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| wrong("SHA256"))?;
        Ok((path, size, digest))
    }
}

/// A relative path under `pool/` or `dists/` without anything that could lead out of it.
pub(crate) fn is_pool_path(path: &str) -> bool {
    path.starts_with("pool/")
        && path
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\' | b'"' | b'\''))
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Parses a Packages file; `what` names it in errors.
pub(crate) fn parse<'a>(text: &'a str, suite: usize, what: &str) -> Result<Vec<Stanza<'a>>> {
    // Stanzas are about 800 bytes.
    let mut out = Vec::with_capacity(text.len() / 700);
    for stanza in deb822::stanzas(text) {
        let mut found = Stanza {
            name: "",
            version: "",
            provides: None,
            essential: false,
            suite,
            text: stanza,
        };
        for field in deb822::fields(stanza) {
            // The first byte decides for nearly all fields: this loop is most of the cost.
            match field {
                Ok(("Package", value)) => found.name = value,
                Ok(("Version", value)) => found.version = value,
                Ok(("Provides", value)) => found.provides = Some(value),
                Ok(("Essential", value)) => found.essential = value == "yes",
                Ok(_) => {}
                Err(line) => return Err(at(text, stanza, what, format!("`{line}` is no field"))),
            }
        }
        if found.name.is_empty() || found.version.is_empty() {
            return Err(at(
                text,
                stanza,
                what,
                "a package without Package or Version".to_owned(),
            ));
        }
        out.push(found);
    }
    Ok(out)
}

fn at(text: &str, stanza: &str, what: &str, reason: String) -> Error {
    let line = deb822::line_of(text, stanza);
    Error::Syntax {
        what: what.to_owned(),
        line,
        reason,
    }
}

/// A suite as its signed Release file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    /// Only used when asked for by name (backports).
    pub(crate) not_automatic: bool,
}

/// Somebody who provides a name: `(name, version or "", number of the stanza)`.
type Provided<'a> = (&'a str, &'a str, usize);

/// All packages of all suites, found by name and by what they provide.
pub(crate) struct Universe<'a> {
    pub(crate) suites: Vec<Suite>,
    pub(crate) stanzas: Vec<Stanza<'a>>,
    by_name: Vec<usize>,
    provided: Vec<Provided<'a>>,
}

impl<'a> Universe<'a> {
    /// Sorts stanzas, whose `suite` are indexes into `suites`.
    pub(crate) fn new(suites: Vec<Suite>, stanzas: Vec<Stanza<'a>>) -> Result<Self> {
        let mut by_name: Vec<usize> = (0..stanzas.len()).collect();
        by_name.sort_by_key(|&i| stanzas[i].name);
        let mut provided = Vec::new();
        for (number, stanza) in stanzas.iter().enumerate() {
            for (name, version) in provides(stanza)? {
                provided.push((name, version, number));
            }
        }
        // Priority is looked up only to tell providers of the same name apart.
        provided.sort_by(|a, b| {
            let key = |p: &Provided<'a>| (stanzas[p.2].priority(), stanzas[p.2].name);
            a.0.cmp(b.0).then_with(|| key(a).cmp(&key(b)))
        });
        Ok(Self {
            suites,
            stanzas,
            by_name,
            provided,
        })
    }

    /// Every version of a package in every suite.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Stanza<'a>> {
        let key = |&i: &usize| self.stanzas[i].name;
        let from = self.by_name.partition_point(|i| key(i) < name);
        let to = self.by_name.partition_point(|i| key(i) <= name);
        self.by_name[from..to].iter().map(|&i| &self.stanzas[i])
    }

    /// Packages that provide a name, by priority as apt does, then by their own names.
    pub(crate) fn providers(&self, name: &str) -> impl Iterator<Item = (&Stanza<'a>, &'a str)> {
        let from = self.provided.partition_point(|p| p.0 < name);
        let to = self.provided.partition_point(|p| p.0 <= name);
        self.provided[from..to]
            .iter()
            .map(|p| (&self.stanzas[p.2], p.1))
    }
}

/// What a stanza provides, with versions (`""` without one).
pub(crate) fn provides<'a>(stanza: &Stanza<'a>) -> Result<Vec<(&'a str, &'a str)>> {
    let Some(field) = stanza.provides else {
        return Ok(Vec::new());
    };
    let groups = relation::parse(field).map_err(|part| {
        Error::Request(format!(
            "{} {}: `{part}` in Provides",
            stanza.name, stanza.version
        ))
    })?;
    Ok(groups
        .into_iter()
        .flatten()
        .map(|r| (r.name, r.bound.map_or("", |(_, v)| v)))
        .collect())
}

/// Fuzz target: a Packages file of any bytes is refused or indexed.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(stanzas) = parse(&text, 0, "fuzz") {
        let suites = vec![Suite {
            name: "fuzz".into(),
            not_automatic: false,
        }];
        if let Ok(universe) = Universe::new(suites, stanzas) {
            for stanza in &universe.stanzas {
                assert!(universe.named(stanza.name).any(|s| std::ptr::eq(s, stanza)));
                let _ = (
                    stanza.artifact(),
                    stanza.relations("Depends"),
                    stanza.source(),
                );
            }
        }
    }
}
