//! The two formats of apt's sources files (sources.list(5)): one line a source, and deb822.
//!
//! Only what is needed to find mirrors is read: options beside `signed-by` have no effect here.

use std::path::PathBuf;

use crate::deb822;

/// One source as apt's files name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) uris: Vec<String>,
    pub(crate) suites: Vec<String>,
    pub(crate) components: Vec<String>,
    pub(crate) signed_by: Option<PathBuf>,
}

/// Only a path to a keyring can be used; fingerprints and keys in line fall back to Debian's own.
fn signed_by(value: &str) -> Option<PathBuf> {
    let first = value
        .split([',', ' ', '\n'])
        .find(|part| !part.is_empty())?;
    first.starts_with('/').then(|| PathBuf::from(first))
}

/// Parses the one-line format (sources.list(5)); errors are `(line, reason)`.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Entry>, (usize, String)> {
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
            components: words.map(str::to_owned).collect(),
            signed_by: keyring,
        });
    }
    Ok(entries)
}

/// Parses the deb822 format; errors are `(line, reason)`.
pub(crate) fn parse_deb822(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let mut entries = Vec::new();
    for stanza in deb822::stanzas(text) {
        let line = deb822::line_of(text, stanza);
        if stanza.lines().all(|l| l.trim_start().starts_with('#')) {
            continue;
        }
        for field in deb822::fields(stanza) {
            if let Err(wrong) = field {
                return Err((
                    deb822::line_of(text, wrong),
                    format!("`{wrong}` is neither a field nor a continuation"),
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
            components: words("Components"),
            signed_by,
        });
    }
    Ok(entries)
}
