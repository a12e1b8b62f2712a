//! The least that the token of a machine must be allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Manifest;
use crate::reference::Reference;

/// What a provider must allow the token, and nothing more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Read the items of a 1Password vault; access is given to whole vaults.
    OnePasswordVault {
        /// Title or id.
        vault: String,
        /// The items that are read.
        items: BTreeSet<String>,
    },
    /// Read one path of a Vault policy.
    VaultPath {
        /// As in a policy: with `data/` or `metadata/`.
        path: String,
    },
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnePasswordVault { vault, items } => {
                let items = items.iter().cloned().collect::<Vec<_>>().join(", ");
                write!(f, "1Password vault {vault:?}: read (items used: {items})")
            }
            Self::VaultPath { path } => {
                write!(f, "path \"{path}\" {{ capabilities = [\"read\"] }}")
            }
        }
    }
}

impl Manifest {
    /// The least privilege that the tokens need.
    pub fn privileges(&self) -> Vec<Privilege> {
        // Titles match without regard to case, so one vault may be written in several ways.
        let mut vaults: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
        let mut paths = BTreeSet::new();
        for entry in self.secrets.values() {
            match &entry.reference {
                Reference::OnePassword(reference) => {
                    let vault = vaults
                        .entry(reference.vault.to_ascii_lowercase())
                        .or_insert_with(|| (reference.vault.clone(), BTreeSet::new()));
                    vault.1.insert(reference.item.clone());
                }
                Reference::Vault(reference) => {
                    for kind in ["data", "metadata"] {
                        paths.insert(format!("{}/{kind}/{}", reference.mount, reference.path));
                    }
                }
                Reference::Age(_) | Reference::Credential(_) => {}
            }
        }
        let vaults = vaults.into_values();
        vaults
            .map(|(vault, items)| Privilege::OnePasswordVault { vault, items })
            .chain(paths.into_iter().map(|path| Privilege::VaultPath { path }))
            .collect()
    }
}
