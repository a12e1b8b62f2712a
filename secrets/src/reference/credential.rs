//! `cred://<name>`: a system credential, by any of systemd's ways in (systemd.system-credentials(7)).

use std::fmt;

use super::file_name;

/// A system credential of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialReference {
    /// Its name.
    pub name: String,
}

impl CredentialReference {
    /// By name. `None`: it cannot be one.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::parse(name).ok()
    }

    /// Parses what follows `cred://`.
    pub(super) fn parse(rest: &str) -> Result<Self, String> {
        Ok(Self {
            name: file_name("name", rest)?,
        })
    }
}

impl fmt::Display for CredentialReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cred://{}", self.name)
    }
}
