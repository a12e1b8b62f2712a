//! What a pipeline of logs remembers over restarts: how far the receiver has acknowledged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::journal::Id128;

/// Version of the file.
const VERSION: u32 = 1;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Version of this format.
    pub version: u32,
    /// The last entry of the journal that the receiver acknowledged; none: nothing was ever.
    pub cursor: Option<String>,
    /// Before anything was acknowledged: the number of the first entry that was seen, and whose
    /// numbers these are.
    pub first: Option<(String, u64)>,
    /// The newest time that any line was shipped with, in ns since 1970.
    pub newest: i64,
    /// The clock of the boot that `clock_boot` names: realtime minus monotonic time in µs, as it
    /// was when the clock had been synchronized.
    pub clock: Option<i64>,
    /// The boot of `clock`, and when it was synchronized by its monotonic clock in µs.
    pub clock_boot: Option<(String, u64)>,
    /// Lines of an ended boot that were shipped ahead of older ones: the boot and the number of
    /// the first of them.
    pub ahead: Option<Ahead>,
}

/// Lines that were shipped ahead of older ones: those of `boot` from `from` on, all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// The boot.
    pub boot: String,
    /// Whose sequence numbers.
    pub seqnum_id: String,
    /// Sequence number of the first.
    pub from: u64,
}

impl Ahead {
    /// Whether an entry is one of them.
    pub(super) fn covers(&self, stamp: &crate::journal::Stamp) -> bool {
        stamp.seqnum >= self.from
            && Id128::parse(&self.seqnum_id) == Some(stamp.seqnum_id)
            && Id128::parse(&self.boot) == Some(stamp.boot)
    }
}

/// Where [`Memory`] is kept.
pub trait Keep {
    /// What was kept last; the default if there is nothing, or nothing usable.
    fn load(&mut self) -> Memory;

    /// Keeps it, so that a power cut leaves this or the one before.
    ///
    /// # Errors
    ///
    /// It could not be written; the one before is still there.
    fn save(&mut self, memory: &Memory) -> Result<(), disk::Error>;
}

/// A small JSON file.
#[derive(Clone, Debug)]
pub struct KeepFile(pub PathBuf);

impl Keep for KeepFile {
    fn load(&mut self) -> Memory {
        let path = self.0.display();
        let text = match std::fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Memory::default(),
            Err(error) => {
                log::error!("cannot read {path}: {error}; the whole journal is shipped again");
                return Memory::default();
            }
        };
        match serde_json::from_slice::<Memory>(&text) {
            Ok(memory) if memory.version == VERSION => memory,
            Ok(memory) => {
                let version = memory.version;
                log::error!(
                    "{path} has version {version}, not {VERSION}; the whole journal is shipped again"
                );
                Memory::default()
            }
            Err(error) => {
                log::error!("{path} is damaged ({error}); the whole journal is shipped again");
                Memory::default()
            }
        }
    }

    fn save(&mut self, memory: &Memory) -> Result<(), disk::Error> {
        let memory = Memory {
            version: VERSION,
            ..memory.clone()
        };
        // A structure of strings and numbers always has a JSON form.
        let text = serde_json::to_vec(&memory).unwrap_or_default();
        disk::atomic::write(&self.0, &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_and_returns_and_survives_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut keep = KeepFile(folder.path().join("cursor.json"));
        assert_eq!(keep.load(), Memory::default());
        let memory = Memory {
            cursor: Some("s=1".into()),
            newest: 5,
            ..Memory::default()
        };
        keep.save(&memory).unwrap();
        assert_eq!(
            keep.load(),
            Memory {
                version: VERSION,
                ..memory
            }
        );
        for damage in [
            "",
            "{",
            "[]",
            r#"{"version":1}"#,
            r#"{"version":9,"newest":1}"#,
        ] {
            std::fs::write(&keep.0, damage).unwrap();
            assert_eq!(keep.load(), Memory::default(), "{damage}");
        }
    }
}
