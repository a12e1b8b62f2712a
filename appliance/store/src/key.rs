//! What an object is called.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::hex;

/// The kinds of objects: each is a name space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Objects of the Xcode compilation cache.
    XcodeCas,
}

impl Kind {
    /// Its name, part of the hash of a key: never changes.
    fn name(self) -> &'static str {
        match self {
            Self::XcodeCas => "xcode-cas",
        }
    }
}

/// The name of an object. Any text will do: it never becomes part of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub account: String,
    /// For which of the account's projects.
    pub project: String,
    /// Its name there.
    pub id: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, account, project) = (self.kind.name(), &self.account, &self.project);
        write!(f, "{kind} {account:?}/{project:?}/{:?}", self.id)
    }
}

/// Where an object is: folder and file name, hexadecimal digits of the hash of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folder: String,
    pub(crate) file: String,
}

impl Key {
    /// Hash of the parts, each with its length before it, so that no two keys share one.
    pub(crate) fn place(&self) -> Place {
        let mut hash = Sha256::new();
        for part in [self.kind.name(), &self.account, &self.project, &self.id] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digits = hex(&hash.finalize());
        let (folder, file) = digits.split_at(3);
        Place {
            folder: folder.into(),
            file: file.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: &str, project: &str, id: &str) -> Key {
        Key {
            kind: Kind::XcodeCas,
            account: account.into(),
            project: project.into(),
            id: id.into(),
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let places = [
            key("ab", "c", "d").place(),
            key("a", "bc", "d").place(),
            key("a", "b", "cd").place(),
            key("", "abc", "d").place(),
        ];
        for (at, place) in places.iter().enumerate() {
            assert!(!places[..at].contains(place));
            assert_eq!((place.folder.len(), place.file.len()), (3, 61));
        }
    }

    #[test]
    fn the_place_of_a_key_never_changes() {
        // printf '\11\0\0\0\0\0\0\0xcode-cas\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0b\1\0\0\0\0\0\0\0c' | sha256sum
        let place = key("a", "b", "c").place();
        assert_eq!(place.folder + &place.file, PLACE);
    }

    const PLACE: &str = "6fb847f2e403cc36f458dd1985ec50b4663e87a82bc1a1d10e47e6b675a609cb";
}
