//! The manifest as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::OnChange;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) providers: Providers,
    #[serde(default)]
    pub(super) secrets: BTreeMap<Spanned<String>, Secret>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Providers {
    pub(super) onepassword: Option<Spanned<OnePassword>>,
    pub(super) vault: Option<Spanned<Vault>>,
    pub(super) age: Option<Spanned<Age>>,
}

/// What every provider over the network has.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    pub(super) token: Option<Spanned<String>>,
    pub(super) ca: Option<PathBuf>,
    pub(super) poll: Option<Spanned<String>>,
    pub(super) burst: Option<u32>,
    pub(super) requests_per_hour: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnePassword {
    pub(super) kind: OnePasswordKind,
    pub(super) url: Option<Spanned<String>>,
    pub(super) hosts: Option<Spanned<Vec<String>>>,
    pub(super) token: Option<Spanned<String>>,
    pub(super) ca: Option<PathBuf>,
    pub(super) poll: Option<Spanned<String>>,
    pub(super) burst: Option<u32>,
    pub(super) requests_per_hour: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnePasswordKind {
    ServiceAccount,
    Connect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    pub(super) url: Spanned<String>,
    pub(super) namespace: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) auth: VaultAuth,
    pub(super) auth_mount: Option<Spanned<String>>,
    pub(super) role_id: Option<Spanned<String>>,
    pub(super) token: Option<Spanned<String>>,
    pub(super) ca: Option<PathBuf>,
    pub(super) poll: Option<Spanned<String>>,
    pub(super) burst: Option<u32>,
    pub(super) requests_per_hour: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum VaultAuth {
    #[default]
    Token,
    Approle,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Age {
    pub(super) folder: Option<PathBuf>,
    pub(super) token: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    pub(super) reference: Spanned<String>,
    pub(super) consumers: Spanned<Vec<Spanned<Consumer>>>,
    #[serde(default = "none")]
    pub(super) on_change: OnChange,
    pub(super) stale: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) required: bool,
    #[serde(default)]
    pub(super) public: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Consumer {
    pub(super) unit: String,
    pub(super) credential: Option<String>,
}

fn none() -> OnChange {
    OnChange::None
}
