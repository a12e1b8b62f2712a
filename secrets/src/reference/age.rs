//! `age://<file>#<name>`: one line `name = "value"` of an age file that the image carries.

use std::fmt;

use super::file_name;

/// A value in an age file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgeReference {
    /// Name of the file in the folder of age files.
    pub file: String,
    /// Key of the TOML table that the file decrypts to; without one the whole file is the value.
    pub name: Option<String>,
}

impl AgeReference {
    /// Parses what follows `age://`.
    pub(super) fn parse(rest: &str) -> Result<Self, String> {
        let (file, name) = match rest.split_once('#') {
            Some((file, name)) => (file, Some(name)),
            None => (rest, None),
        };
        Ok(Self {
            file: file_name("file", file)?,
            name: name
                .map(|name| super::part("name", name, "_-"))
                .transpose()?,
        })
    }
}

impl fmt::Display for AgeReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "age://{}", self.file)?;
        match &self.name {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}
