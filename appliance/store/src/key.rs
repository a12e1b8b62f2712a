//! What an object is called.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::format::mix;

/// A 128-bit hash.
pub(crate) type Hash = [u8; 16];
/// Most bytes that the parts of a key hold together.
pub const KEY_LIMIT: usize = 4096;

/// The kinds of objects: each is a name space of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Objects of the Xcode compilation cache.
    #[default]
    XcodeCas,
    /// Entries of the Xcode action cache: small, they name objects, and age by time of last use.
    KeyValue,
    /// Artifacts of modules.
    Module,
    /// Gradle's build cache.
    Gradle,
    /// Results of actions (Bazel and its like): entries, as [`Kind::KeyValue`].
    Action,
    /// Blobs that results of actions name.
    Blob,
    /// Everything else that clients name freely.
    Free,
}

impl Kind {
    /// Its name, part of the hash of a key and of every record: never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::XcodeCas => "xcode-cas",
            Self::KeyValue => "key-value",
            Self::Module => "module",
            Self::Gradle => "gradle",
            Self::Action => "action",
            Self::Blob => "blob",
            Self::Free => "free",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [
            Self::XcodeCas,
            Self::KeyValue,
            Self::Module,
            Self::Gradle,
            Self::Action,
            Self::Blob,
            Self::Free,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }

    /// Whether its objects are entries, to which the retention bound applies.
    #[must_use]
    pub fn is_entry(self) -> bool {
        matches!(self, Self::KeyValue | Self::Action)
    }
}

/// The name of an object, compared as written. Any text will do: it never becomes part of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub account: String,
    /// For which of the account's projects.
    pub project: String,
    /// Category, where the kind has some.
    pub category: String,
    /// Its hash, or the id that the client gives it.
    pub hash: String,
    /// Name of the file, where the kind has some.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(f)
    }
}

impl Key {
    pub(crate) fn parts(&self) -> Parts {
        let (kind, account, project) = (self.kind.name(), &self.account, &self.project);
        let all = [
            kind,
            account,
            project,
            &self.category,
            &self.hash,
            &self.name,
        ];
        Parts::of(all)
    }

    pub(crate) fn each(&self) -> [&str; 6] {
        let (kind, account, project) = (self.kind.name(), &self.account, &self.project);
        [
            kind,
            account,
            project,
            &self.category,
            &self.hash,
            &self.name,
        ]
    }

    /// Whether it is as long as a record can hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let length = self.each().iter().map(|part| part.len()).sum();
        if length > KEY_LIMIT {
            return Err(Error::Key { length });
        }
        Ok(())
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        hash(&self.each())
    }

    pub(crate) fn project_hash(&self) -> [u8; 32] {
        project_hash(&self.account, &self.project)
    }

    /// Whether these are the parts of this key.
    pub(crate) fn is(&self, parts: &Parts) -> bool {
        self.each() == parts.each()
    }
}

/// SHA-256 of parts, each with its length before it, so that no two rows of parts share one.
fn hash(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Hash of a project, by which cleans name it.
pub(crate) fn project_hash(account: &str, project: &str) -> [u8; 32] {
    hash(&[account, project])
}

/// The tag of a key (`FORMAT.md` 1.1).
pub(crate) fn tag(key: &[u8; 32], generation: u64) -> u64 {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&key[at..at + 8]);
        u64::from_le_bytes(word)
    };
    match generation {
        0 => word(0),
        _ => word(0) ^ mix(word(8) ^ generation),
    }
}

/// The six parts of a key as a record holds them; its kind may be one that this program lacks.
#[derive(Clone, PartialEq, Eq)]
pub struct Parts {
    text: String,
    ends: [u16; 6],
}

impl Parts {
    fn of(parts: [&str; 6]) -> Self {
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut ends = [0; 6];
        for (part, end) in parts.into_iter().zip(&mut ends) {
            text.push_str(part);
            // KEY_LIMIT was checked, or u16 lengths were read.
            *end = text.len() as u16;
        }
        Self { text, ends }
    }

    pub(crate) fn new(parts: &[&str]) -> Option<Self> {
        let parts: [&str; 6] = parts.try_into().ok()?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        (length <= KEY_LIMIT).then(|| Self::of(parts))
    }

    /// Kind, account, project, category, hash, name.
    #[must_use]
    pub fn each(&self) -> [&str; 6] {
        let mut start = 0;
        self.ends.map(|end| {
            let part = &self.text[start..usize::from(end)];
            start = usize::from(end);
            part
        })
    }

    /// The key, if its kind is known.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        let [kind, account, project, category, hash, name] = self.each();
        Some(Key {
            kind: Kind::of_name(kind)?,
            account: account.into(),
            project: project.into(),
            category: category.into(),
            hash: hash.into(),
            name: name.into(),
        })
    }

    pub(crate) fn project_hash(&self) -> [u8; 32] {
        let [_, account, project, ..] = self.each();
        project_hash(account, project)
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, account, project, category, hash, name] = self.each();
        write!(f, "{kind} {account:?}/{project:?}")?;
        for part in [category, hash, name] {
            if !part.is_empty() {
                write!(f, "/{part:?}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: &str, project: &str, hash: &str, name: &str) -> Key {
        Key {
            account: account.into(),
            project: project.into(),
            hash: hash.into(),
            name: name.into(),
            ..Key::default()
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = [
            key("ab", "c", "d", ""),
            key("a", "bc", "d", ""),
            key("a", "b", "cd", ""),
            key("a", "b", "c", "d"),
            key("", "abc", "d", ""),
            key("AB", "c", "d", ""),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys[..at].iter().all(|other| other.hash() != one.hash()));
            assert_eq!(one.parts().key().as_ref(), Some(one));
            assert!(one.is(&one.parts()));
        }
    }

    #[test]
    fn the_hash_of_a_key_never_changes() {
        // printf '\11\0\0\0\0\0\0\0xcode-cas\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0b\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0c\0\0\0\0\0\0\0\0' | sha256sum
        assert_eq!(crate::error::hex(&key("a", "b", "c", "").hash()), HASH);
        let hash = key("a", "b", "c", "").hash();
        assert_ne!(tag(&hash, 0), tag(&hash, 1));
        assert_ne!(tag(&hash, 2), tag(&hash, 1));
    }

    const HASH: &str = "80ab52d3cbe5728ca2a3f73d2e93731aefda055f495b2c7d8fdc5eb828ded814";
}
