//! `/cas/.larder`: what says that a file system is a Larder `/cas`, and which format it has.

use std::io::ErrorKind;
use std::path::Path;

use uuid::Uuid;

use crate::{Error, atomic};

/// Name of the file in the root of `/cas`.
pub const NAME: &str = ".larder";
/// The format that this version writes and knows.
pub const FORMAT: u32 = 1;
/// More than this is no marker, in bytes.
const LIMIT: u64 = 4096;

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Version of the format of what is on the file system.
    pub format: u32,
    /// Identity of this `/cas`; it stays when the file system grows or moves.
    pub uuid: Uuid,
}

impl Marker {
    /// Reads the marker of the file system at `root`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It could not be read, or makes no sense.
    pub fn read(root: &Path) -> Result<Option<Self>, Error> {
        let path = root.join(NAME);
        let length = match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => {
                return Err(Error::Marker {
                    path,
                    reason: "it is not a file".into(),
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::path(path, "look at")(error)),
        };
        if length > LIMIT {
            return Err(Error::Marker {
                path,
                reason: format!("it has {length} bytes"),
            });
        }
        let text = std::fs::read_to_string(&path).map_err(Error::path(&path, "read"))?;
        Self::parse(&text)
            .map(Some)
            .map_err(|reason| Error::Marker { path, reason })
    }

    /// Parses the file.
    ///
    /// # Errors
    ///
    /// What is missing or wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().trim_matches('"'))
                .ok_or_else(|| format!("it says no {key}"))
        };
        let format = value("format")?
            .parse()
            .map_err(|error| format!("its format is unclear: {error}"))?;
        let uuid = value("uuid")?
            .parse()
            .map_err(|error| format!("its UUID is unclear: {error}"))?;
        Ok(Self { format, uuid })
    }

    /// Writes the marker of the file system at `root`: whole or not at all.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub fn write(&self, root: &Path) -> Result<(), Error> {
        let path = root.join(NAME);
        atomic::write(&path, self.to_string().as_bytes(), 0o644)
    }
}

impl std::fmt::Display for Marker {
    /// The file's text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "# This file system is a Larder /cas.")?;
        writeln!(f, "format = {}", self.format)?;
        writeln!(f, "uuid = \"{}\"", self.uuid)
    }
}

/// Fuzz target: no bytes may panic the parser.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(marker) = Marker::parse(&text) {
        assert_eq!(Marker::parse(&marker.to_string()), Ok(marker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(folder.path()).unwrap(), None);
        let marker = Marker {
            format: FORMAT,
            uuid: crate::random_uuid().unwrap(),
        };
        // What a power cut left behind is no obstacle.
        std::fs::write(folder.path().join(".larder.new"), "half").unwrap();
        marker.write(folder.path()).unwrap();
        assert_eq!(Marker::read(folder.path()).unwrap(), Some(marker));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nonsense_is_an_error_that_says_what() {
        assert_eq!(Marker::parse("uuid = x"), Err("it says no format".into()));
        assert!(
            Marker::parse("format = 1\nuuid = x")
                .unwrap_err()
                .contains("UUID")
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(NAME)).unwrap();
        assert!(Marker::read(folder.path()).is_err());
    }
}
