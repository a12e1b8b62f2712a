//! References to secrets: where a value comes from, never the value.
//!
//! | form | provider |
//! |---|---|
//! | `op://vault/item/[section/]field[?attribute=otp]` | 1Password |
//! | `vault://mount/path#key` | Vault or OpenBao, KV version 2 |
//! | `age://file#name` | an age file that the image carries |
//! | `cred://name` | a system credential of the machine |

mod age;
mod credential;
mod onepassword;
mod vault;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use age::AgeReference;
pub use credential::CredentialReference;
pub use onepassword::{Attribute, OnePasswordReference};
pub use vault::VaultReference;

/// A reference is no longer than this, in bytes.
const LONGEST: usize = 1024;

/// Where the value of a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// `op://`: 1Password, by a service account or a Connect server.
    OnePassword(OnePasswordReference),
    /// `vault://`: Vault or OpenBao, KV version 2.
    Vault(VaultReference),
    /// `age://`: an age file.
    Age(AgeReference),
    /// `cred://`: a system credential.
    Credential(CredentialReference),
}

/// Which provider a reference needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// `op://`.
    Op,
    /// `vault://`.
    Vault,
    /// `age://`.
    Age,
    /// `cred://`.
    Cred,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Op => "op",
            Self::Vault => "vault",
            Self::Age => "age",
            Self::Cred => "cred",
        })
    }
}

/// A reference that does not follow the grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reference:?} is no reference to a secret: {reason}")]
pub struct ReferenceError {
    /// As it was given, shortened.
    pub reference: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Reference {
    /// Which provider it needs.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::OnePassword(_) => Scheme::Op,
            Self::Vault(_) => Scheme::Vault,
            Self::Age(_) => Scheme::Age,
            Self::Credential(_) => Scheme::Cred,
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: String| ReferenceError {
            // A value pasted in place of a reference must not reach a log.
            reference: match text.split_once("://") {
                Some((scheme @ ("op" | "vault" | "age" | "cred"), _)) if text.len() > 200 => {
                    format!("{scheme}://…")
                }
                Some(("op" | "vault" | "age" | "cred", _)) => text.into(),
                _ => "…".into(),
            },
            reason,
        };
        if text.len() > LONGEST {
            return Err(fail(format!("it is longer than {LONGEST} bytes")));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(fail(
                "it does not begin with op://, vault://, age:// or cred:// (it is not shown, in \
                 case it is a value)"
                    .into(),
            ));
        };
        let parsed = match scheme {
            "op" => OnePasswordReference::parse(rest).map(Self::OnePassword),
            "vault" => VaultReference::parse(rest).map(Self::Vault),
            "age" => AgeReference::parse(rest).map(Self::Age),
            "cred" => CredentialReference::parse(rest).map(Self::Credential),
            _ => Err("its scheme must be op, vault, age or cred, in lower case".into()),
        };
        parsed.map_err(fail)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnePassword(reference) => reference.fmt(f),
            Self::Vault(reference) => reference.fmt(f),
            Self::Age(reference) => reference.fmt(f),
            Self::Credential(reference) => reference.fmt(f),
        }
    }
}

/// One part of a reference: not empty, without white space around it, only the characters allowed.
fn part(name: &str, text: &str, allowed: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("its {name} is empty"));
    }
    if text.trim() != text {
        return Err(format!("its {name} begins or ends with a space"));
    }
    match text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c))
    {
        Some(c) => Err(format!("its {name} has {c:?}, which it may not have")),
        None => Ok(text.into()),
    }
}

/// A name that is a file name too: no path, no hidden file.
fn file_name(name: &str, text: &str) -> Result<String, String> {
    let text = part(name, text, "_.-")?;
    if text.starts_with('.') {
        return Err(format!("its {name} begins with a dot"));
    }
    if text.len() > 255 {
        return Err(format!("its {name} is longer than 255 bytes"));
    }
    Ok(text)
}
