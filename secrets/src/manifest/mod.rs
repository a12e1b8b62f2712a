//! `secrets/manifest.toml`: which secrets there are, where they come from and who gets them.
//!
//! The file holds references and never a value. Unknown keys are refused; every problem is told,
//! with its line, not only the first.

mod check;
mod file;
mod privileges;
mod staleness;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reference::{CredentialReference, Reference, Scheme};
use crate::transport::Origin;

pub use privileges::Privilege;
pub use staleness::Staleness;

/// System credential that holds the one token of a machine, unless a provider names another.
pub const TOKEN: &str = "larder.secrets-token";

/// A manifest that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// How the providers that the references need are reached.
    pub providers: BTreeMap<Scheme, Provider>,
    /// The secrets by name.
    pub secrets: BTreeMap<String, Entry>,
}

/// One secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where its value comes from.
    pub reference: Reference,
    /// Who gets it.
    pub consumers: Vec<Consumer>,
    /// What happens to them when it changes.
    pub on_change: OnChange,
    /// For how long an old value does when the provider is down.
    pub stale: Staleness,
    /// Whether its consumers must not start without it.
    pub required: bool,
    /// Not secret at all (a URL, a user name): may be short, and is not blotted out of logs.
    pub public: bool,
}

/// A credential of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// The unit, such as `larder-cache.service`.
    pub unit: String,
    /// Name of the credential, as in its `LoadCredential=`.
    pub credential: String,
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.credential, self.unit)
    }
}

/// What happens to the consumers of a secret that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// Nothing: it reads the new value when it starts the next time.
    None,
    /// `systemctl reload`: it reads the new value from the refresh socket.
    Reload,
    /// `systemctl restart`.
    Restart,
}

/// How a provider is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Which, and what only it needs.
    pub kind: ProviderKind,
    /// System credential with its token or key.
    pub token: String,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Time between two looks for changes. `None`: only when asked.
    pub poll: Option<Duration>,
    /// Requests it may be sent.
    pub budget: Budget,
}

/// How many requests a provider may be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// At once.
    pub burst: u32,
    /// In the long run, an hour.
    pub per_hour: u32,
}

/// The providers and what only one of them needs.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderKind {
    /// 1Password by a service account. Its protocol is not a documented public API.
    ServiceAccount {
        /// Hosts that a token may name besides 1Password's own.
        hosts: Vec<String>,
    },
    /// 1Password by a Connect server.
    Connect {
        /// Where it is.
        origin: Origin,
    },
    /// Vault or OpenBao.
    Vault {
        /// Where it is.
        origin: Origin,
        /// Namespace of all paths.
        namespace: Option<String>,
        /// How to log in.
        login: VaultLogin,
    },
    /// Age files.
    Age {
        /// Folder that holds them.
        folder: PathBuf,
    },
    /// System credentials of the machine.
    Credential,
}

/// How to log in to Vault or OpenBao.
#[derive(Clone, Debug, PartialEq)]
pub enum VaultLogin {
    /// The credential is a token.
    Token,
    /// The credential is the secret id of an AppRole.
    AppRole {
        /// Where the method is mounted, such as `approle`.
        mount: String,
        /// The role, which is not secret.
        role_id: String,
    },
}

impl ProviderKind {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ServiceAccount { .. } => "1Password service account",
            Self::Connect { .. } => "1Password Connect",
            Self::Vault { .. } => "Vault",
            Self::Age { .. } => "age file",
            Self::Credential => "system credential",
        }
    }

    /// Whether it is asked over the network.
    pub fn remote(&self) -> bool {
        matches!(
            self,
            Self::ServiceAccount { .. } | Self::Connect { .. } | Self::Vault { .. }
        )
    }
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// Everything that is wrong with it, in the order of the lines.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line in the file, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match problem.line {
                0 => write!(f, "{}: {}", self.path.display(), problem.message)?,
                line => write!(f, "{}:{line}: {}", self.path.display(), problem.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Reads and checks a manifest file.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) => Err(ManifestError {
                path: path.into(),
                problems: vec![Problem {
                    line: 0,
                    message: format!("cannot read it: {error}"),
                }],
            }),
        }
    }

    /// Checks the text of a manifest; the path is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        check::check(text).map_err(|mut problems| {
            problems.sort();
            ManifestError {
                path: path.into(),
                problems,
            }
        })
    }

    /// The secret that a unit gets as this credential. `None`: it gets none.
    pub fn find(&self, consumer: &Consumer) -> Option<(&str, &Entry)> {
        let mut entries = self.secrets.iter();
        let found = entries.find(|(_, entry)| entry.consumers.contains(consumer))?;
        Some((found.0, found.1))
    }

    /// Every unit that gets a secret must exist. What is wrong, a sentence each.
    ///
    /// # Errors
    /// A consumer is no unit of the image.
    pub fn check_consumers(&self, exists: impl Fn(&str) -> bool) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for (name, entry) in &self.secrets {
            for Consumer { unit, .. } in &entry.consumers {
                if !exists(unit) {
                    problems.push(format!(
                        "secret {name}: there is no unit {unit} in the image"
                    ));
                }
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// By unit, the names of the credentials that it gets, sorted.
    pub fn credentials(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut units: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for consumer in self.secrets.values().flat_map(|entry| &entry.consumers) {
            let credentials = units.entry(&consumer.unit).or_default();
            credentials.push(&consumer.credential);
        }
        for credentials in units.values_mut() {
            credentials.sort_unstable();
        }
        units
    }

    /// A system credential that has a secret's name takes its place on that machine: whoever may give
    /// one is trusted with all others too. The names of those that do.
    pub fn prefer_machine(&mut self, has: impl Fn(&str) -> bool) -> Vec<&str> {
        let mut preferred = Vec::new();
        for (name, entry) in &mut self.secrets {
            if let Some(own) = CredentialReference::of_name(name).filter(|_| has(name)) {
                entry.reference = Reference::Credential(own);
                preferred.push(name.as_str());
            }
        }
        preferred
    }
}
