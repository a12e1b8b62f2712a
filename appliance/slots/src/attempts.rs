//! Boots since the last healthy one, kept on the state file system.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Entry, Error};

/// After so many boots that were not healthy, the other image is asked for.
pub const LIMIT: u32 = 3;

const FILE: &str = "attempts";

/// What is kept in `/var/lib/larder/boot/attempts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Boots since the last healthy one, this one included.
    pub boots: u32,
    /// Whether the other image was asked for since the last healthy boot.
    pub asked: bool,
}

impl Attempts {
    /// Reads what is kept in `folder`; zero if nothing is, or if it makes no sense (a counter is
    /// not worth a boot).
    ///
    /// # Errors
    ///
    /// The file could not be read.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = file(folder);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(Error::Path {
                path,
                action: "read",
                cause,
            }),
        }
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
        };
        Self {
            boots: value("boots")
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(0),
            asked: value("asked").is_some_and(|(_, value)| value == "1"),
        }
    }

    /// Writes to `folder`, which is made if it is missing; durable when this returns.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub fn store(self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(Error::path(folder, "make the folder"))?;
        let text = format!("boots={}\nasked={}\n", self.boots, u8::from(self.asked));
        Ok(disk::atomic::write(&file(folder), text.as_bytes(), 0o644)?)
    }

    /// Counts a boot.
    #[must_use]
    pub fn one_more(self) -> Self {
        Self {
            boots: self.boots.saturating_add(1),
            ..self
        }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// What stage1 does about the boots that were not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: there were at most [`LIMIT`].
    GoOn,
    /// Ask the boot loader for this entry, remember that, and reboot.
    AskFor(String),
    /// There is no other valid entry.
    NoOther,
    /// The other one was asked for already; asking again would go round in circles.
    AlreadyAsked,
}

/// Decides about a boot that is already counted. `booted` is the id of the entry that was booted
/// (`None`: unknown), `entries` are those on the ESP.
#[must_use]
pub fn advise(attempts: Attempts, booted: Option<&str>, entries: &[Entry]) -> Advice {
    if attempts.boots <= LIMIT {
        return Advice::GoOn;
    }
    if attempts.asked {
        return Advice::AlreadyAsked;
    }
    // Without the name of the booted one nobody can say which is the other.
    let Some(booted) = booted.and_then(Entry::parse) else {
        return Advice::NoOther;
    };
    entries
        .iter()
        .rfind(|entry| {
            !entry.is_bad()
                && !entry.stem.eq_ignore_ascii_case(&booted.stem)
                && entry.product() == booted.product()
        })
        .map_or(Advice::NoOther, |other| Advice::AskFor(other.id()))
}

/// Fuzz target: no bytes may panic the parser.
pub(crate) fn fuzz(bytes: &[u8]) {
    let attempts = Attempts::parse(&String::from_utf8_lossy(bytes)).one_more();
    let _ = advise(attempts, Some("larder_1.efi"), &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(names: &[&str]) -> Vec<Entry> {
        names.iter().filter_map(|name| Entry::parse(name)).collect()
    }

    fn after(boots: u32) -> Attempts {
        Attempts {
            boots,
            asked: false,
        }
    }

    #[test]
    fn counting_survives_and_nonsense_is_zero() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("boot");
        assert_eq!(Attempts::load(&folder).unwrap(), Attempts::default());
        let counted = Attempts {
            boots: 4,
            asked: true,
        };
        counted.store(&folder).unwrap();
        assert_eq!(Attempts::load(&folder).unwrap(), counted);
        assert_eq!(counted.one_more().boots, 5);
        std::fs::write(file(&folder), [0xff, 0, b'=']).unwrap();
        assert_eq!(Attempts::load(&folder).unwrap(), Attempts::default());
    }

    #[test]
    fn the_other_entry_is_asked_for_after_three() {
        let both = entries(&["larder_1.efi", "larder_2+2-1.efi"]);
        let booted = Some("larder_1.efi");
        assert_eq!(advise(after(3), booted, &both), Advice::GoOn);
        assert_eq!(
            advise(after(4), booted, &both),
            Advice::AskFor("larder_2.efi".into())
        );
        assert_eq!(
            advise(after(4), Some("larder_2.efi"), &both),
            Advice::AskFor("larder_1.efi".into())
        );
        let asked = Attempts {
            boots: 9,
            asked: true,
        };
        assert_eq!(advise(asked, booted, &both), Advice::AlreadyAsked);
    }

    #[test]
    fn an_entry_that_cannot_help_is_not_asked_for() {
        let ask = |names: &[&str]| advise(after(4), Some("larder_1.efi"), &entries(names));
        assert_eq!(ask(&["larder_1.efi"]), Advice::NoOther);
        assert_eq!(ask(&["LARDER_1.efi"]), Advice::NoOther);
        assert_eq!(ask(&["larder_1.efi", "larder_2+0-3.efi"]), Advice::NoOther);
        assert_eq!(ask(&["larder_1.efi", "other_2.efi"]), Advice::NoOther);
        let both = entries(&["larder_1.efi", "larder_2.efi"]);
        assert_eq!(advise(after(4), None, &both), Advice::NoOther);
    }
}
