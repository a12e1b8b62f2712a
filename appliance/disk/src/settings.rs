//! `/etc/larder/mounts`: how the file systems are made and mounted.
//!
//! The image builder writes it from the configuration; stage1 reads it from the sealed root before
//! anything else runs, so it is plain text that needs no TOML parser:
//!
//! ```text
//! state=noatime,commit=30,lazytime
//! cas=noatime,nodiratime,commit=60,lazytime,errors=remount-ro
//! cas.mkfs=-i 8192 -m 0
//! esp=umask=0077,dirsync
//! ```
//!
//! What the file does not say has the defaults shown above.

use std::collections::BTreeMap;
use std::path::Path;

/// Where the file is in the image.
pub const PATH: &str = "/etc/larder/mounts";

const DEFAULTS: &[(&str, &str)] = &[
    ("state", "noatime,commit=30,lazytime"),
    (
        "cas",
        "noatime,nodiratime,commit=60,lazytime,errors=remount-ro",
    ),
    ("cas.mkfs", "-i 8192 -m 0"),
    ("esp", "umask=0077,dirsync"),
];

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// What in the file could not be used, in words.
    pub problems: Vec<String>,
}

impl Settings {
    /// Reads the file; without one, the defaults hold (and [`Settings::problems`] says why).
    #[must_use]
    pub fn load(path: &Path) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) => Self {
                problems: vec![format!("{}: {error}; the defaults hold", path.display())],
                ..Self::default()
            },
        }
    }

    /// Parses the file. A line that makes no sense is left out and named in
    /// [`Settings::problems`]: a machine has to boot with what it has.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once('=') {
                Some((key, value)) if is_key(key.trim()) => {
                    settings
                        .values
                        .insert(key.trim().into(), value.trim().into());
                }
                _ => settings
                    .problems
                    .push(format!("line {} makes no sense: {line}", index + 1)),
            }
        }
        settings
    }

    /// Mount options of a file system (`state`, `cas`, `esp`), separated by commas.
    #[must_use]
    pub fn mount(&self, name: &str) -> &str {
        self.value(name)
    }

    /// Words for mke2fs.
    #[must_use]
    pub fn mkfs(&self, name: &str) -> Vec<String> {
        self.value(&format!("{name}.mkfs"))
            .split_whitespace()
            .map(Into::into)
            .collect()
    }

    fn value(&self, key: &str) -> &str {
        match self.values.get(key) {
            Some(value) => value,
            None => DEFAULTS
                .iter()
                .find(|(name, _)| *name == key)
                .map_or("", |(_, value)| value),
        }
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'.')
}

/// Fuzz target: no bytes may panic the parser.
pub fn fuzz(bytes: &[u8]) {
    let settings = Settings::parse(&String::from_utf8_lossy(bytes));
    let _ = (settings.mount("state"), settings.mkfs("cas"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_over_the_defaults() {
        let settings =
            Settings::parse("# comment\n\nstate = noatime\nstate.mkfs=-i 16384\ncas=\nnonsense\n");
        assert_eq!(settings.mount("state"), "noatime");
        assert_eq!(settings.mkfs("state"), ["-i", "16384"]);
        assert_eq!(settings.mount("cas"), "");
        assert_eq!(settings.mkfs("cas"), ["-i", "8192", "-m", "0"]);
        assert_eq!(settings.mount("esp"), "umask=0077,dirsync");
        assert_eq!(settings.problems, ["line 6 makes no sense: nonsense"]);
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        let settings = Settings::load(Path::new("/nonexistent/mounts"));
        assert_eq!(settings.mount("state"), "noatime,commit=30,lazytime");
        assert!(settings.mkfs("state").is_empty());
        assert_eq!(settings.problems.len(), 1);
    }
}
