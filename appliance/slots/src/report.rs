//! `/run/larder/boot.json`: what stage1 found and did, for everybody after it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where the report is once the system runs.
pub const PATH: &str = "/run/larder/boot.json";
/// The version that is written.
const VERSION: u32 = 1;

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BootReport {
    /// Version of this format.
    pub version: u32,
    /// Device node of the disk that root and state come from.
    pub disk: String,
    /// Device node of the ESP on that disk.
    pub esp: Option<String>,
    /// Device node of the state partition, whether it could be used or not.
    pub state: Option<String>,
    /// Device node of the `/cas` partition on that disk; `None` on a two-disk host.
    pub cas: Option<String>,
    /// The slot that runs: `a` or `b`.
    pub slot: String,
    /// Root hash of the sealed root, hexadecimal.
    pub root_hash: String,
    /// Boots since the last healthy one, this one included.
    pub boot_count: u32,
    /// What `/var` is.
    pub state_status: StateStatus,
    /// Sentences that the operator should read.
    pub messages: Vec<String>,
}

/// What `/var` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StateStatus {
    /// The state file system.
    Ok,
    /// The state file system, made at this boot.
    Created,
    /// Memory: what is written is lost at the next boot.
    Tmpfs,
}

impl BootReport {
    /// A report about a disk, to be filled in.
    #[must_use]
    pub fn new(disk: &str, root_hash: &str) -> Self {
        Self {
            version: VERSION,
            disk: disk.into(),
            esp: None,
            state: None,
            cas: None,
            slot: String::new(),
            root_hash: root_hash.into(),
            boot_count: 0,
            state_status: StateStatus::Tmpfs,
            messages: Vec::new(),
        }
    }

    /// Writes the report to `path`, whole or not at all.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::Content {
            path: path.into(),
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        Ok(disk::atomic::write(path, &text, 0o644)?)
    }

    /// Reads the report at `path` ([`PATH`] but for tests).
    ///
    /// # Errors
    ///
    /// It is missing or makes no sense.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(Error::path(path, "read"))?;
        serde_json::from_slice(&text).map_err(|error| Error::Content {
            path: path.into(),
            reason: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_agreed_shape() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.json");
        let mut report = BootReport::new("/dev/vda", "ab");
        report.esp = Some("/dev/vda2".into());
        report.slot = "a".into();
        report.state_status = StateStatus::Created;
        report.messages.push("a \"word\"".into());
        report.write(&path).unwrap();
        let text: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let expected = serde_json::json!({
            "version": 1, "disk": "/dev/vda", "esp": "/dev/vda2", "state": null, "cas": null,
            "slot": "a", "root_hash": "ab", "boot_count": 0, "state_status": "created",
            "messages": ["a \"word\""],
        });
        assert_eq!(text, expected);
        assert_eq!(BootReport::read(&path).unwrap(), report);
        std::fs::write(&path, "{}").unwrap();
        assert!(
            BootReport::read(&path)
                .unwrap_err()
                .to_string()
                .contains("boot.json")
        );
    }
}
