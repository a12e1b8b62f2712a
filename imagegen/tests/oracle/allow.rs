//! `allow.toml`: which differences are meant, and why.

use std::collections::BTreeSet;
use std::path::Path;

use config::glob::Pattern;
use serde::Deserialize;

use crate::compare::{Difference, What};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    allow: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Patterns as in image.toml's trim rules.
    paths: Vec<String>,
    /// What may differ there.
    what: BTreeSet<What>,
    /// Why.
    why: String,
}

/// The list: one rule for each pattern and each kind of difference.
pub(crate) struct AllowList(Vec<(String, Pattern, What)>);

impl AllowList {
    pub(crate) fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/allow.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("allow.toml: {e}"));
        let mut rules = Vec::new();
        for entry in file.allow {
            assert!(entry.why.len() > 10, "{:?} has no reason", entry.paths);
            for path in &entry.paths {
                for what in &entry.what {
                    rules.push((path.clone(), Pattern::new(path), *what));
                }
            }
        }
        Self(rules)
    }

    /// Differences that no rule explains, and patterns that explain none.
    pub(crate) fn judge<'d>(&self, all: &'d [Difference]) -> (Vec<&'d Difference>, Vec<&str>) {
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let mut unlisted = Vec::new();
        for difference in all {
            let mut found = false;
            for (text, pattern, what) in &self.0 {
                if *what == difference.what && pattern.matches(&difference.path) {
                    used.insert(text);
                    found = true;
                }
            }
            if !found {
                unlisted.push(difference);
            }
        }
        let patterns: BTreeSet<&str> = self.0.iter().map(|(text, ..)| text.as_str()).collect();
        (unlisted, patterns.difference(&used).copied().collect())
    }
}
