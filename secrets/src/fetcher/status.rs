//! What people see of the fetcher: never a value.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Fetcher, Reply};
use crate::error::Class;

/// Where the service leaves its status as JSON for everybody to read.
pub const STATUS: &str = "/run/larder-secrets/status.json";

/// How all is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// When it was so, in seconds since 1970.
    pub time: u64,
    /// The secrets, by name.
    pub secrets: Vec<SecretStatus>,
    /// The providers that are asked over the network.
    pub providers: Vec<ProviderStatus>,
    /// How often credentials were asked for, by what came of it: `value`, `absent`, `failed` (the unit
    /// was made to fail), `denied`.
    pub served: BTreeMap<String, u64>,
}

/// How a secret is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretStatus {
    /// Its name in the manifest.
    pub name: String,
    /// Where it comes from.
    pub reference: String,
    /// Who gives it.
    pub provider: String,
    /// `waiting`, `fresh`, `last-known-good`, `stale` (too old to be given out) or `missing`.
    pub state: String,
    /// Seconds since the provider confirmed it.
    pub age: Option<u64>,
    /// Whether its consumers need it.
    pub required: bool,
    /// What went wrong last, if anything.
    pub error: Option<Class>,
    /// In words.
    pub message: Option<String>,
}

/// How a provider is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// Which.
    pub provider: String,
    /// Requests that it may be sent now.
    pub budget: u64,
    /// Requests that it was sent since the service started.
    pub requests: u64,
}

/// Counts replies.
#[derive(Debug, Default)]
pub(super) struct Served([AtomicU64; 4]);

/// Their names, in the order of [`Served`].
const REPLIES: [&str; 4] = ["value", "absent", "failed", "denied"];

impl Served {
    pub(super) fn count(&self, reply: &Reply) {
        let index = match reply {
            Reply::Value(_) => 0,
            Reply::Absent => 1,
            Reply::Fail => 2,
            Reply::Denied => 3,
        };
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    fn all(&self) -> BTreeMap<String, u64> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        let names = REPLIES.iter().map(|name| (*name).to_owned());
        names.zip(counts).collect()
    }
}

impl Fetcher {
    /// Notes that somebody asked for what is none of theirs.
    pub(crate) fn denied(&self) {
        self.0.served.count(&Reply::Denied);
    }

    /// How all is now.
    pub fn status(&self) -> Status {
        let now = self.0.now();
        let provider = |scheme| match self.0.manifest.providers.get(&scheme) {
            Some(provider) => provider.kind.name().to_owned(),
            None => scheme.to_string(),
        };
        let table = self.0.table();
        let secret = |(name, entry): (&String, &crate::manifest::Entry)| {
            let state = &table.secrets[name];
            let value = state.value.as_ref();
            let age = value.map(|value| now.saturating_sub(value.confirmed));
            let usable = value.is_some_and(|value| {
                let age = std::time::Duration::from_secs(age.unwrap_or_default());
                entry.stale.allows(age, value.earlier_boot)
            });
            let word = match value {
                None if !state.settled => "waiting",
                None => "missing",
                Some(_) if !usable => "stale",
                Some(value) if value.earlier_boot => "last-known-good",
                Some(_) => "fresh",
            };
            SecretStatus {
                name: name.clone(),
                reference: entry.reference.to_string(),
                provider: provider(entry.reference.scheme()),
                state: word.into(),
                age,
                required: entry.required,
                error: state.error.as_ref().map(|error| error.class),
                // Without the time to the next attempt, which changes with each.
                message: state
                    .error
                    .clone()
                    .map(|error| error.after(None).to_string()),
            }
        };
        Status {
            time: now,
            secrets: self.0.manifest.secrets.iter().map(secret).collect(),
            providers: self
                .0
                .budgets
                .iter()
                .map(|(scheme, budget)| ProviderStatus {
                    provider: provider(*scheme),
                    budget: budget.left() as u64,
                    requests: budget.taken(),
                })
                .collect(),
            served: self.0.served.all(),
        }
    }
}

impl Status {
    /// What is not as it should be.
    pub fn bad(&self) -> impl Iterator<Item = &SecretStatus> {
        self.secrets.iter().filter(|secret| secret.state != "fresh")
    }

    /// One line: how many are as they should be, and the names of the others.
    pub fn summary(&self) -> String {
        let bad: Vec<String> = self
            .bad()
            .map(|secret| format!("{} {}", secret.name, secret.state))
            .collect();
        let good = self.secrets.len() - bad.len();
        let all = self.secrets.len();
        match bad.is_empty() {
            true => format!("{good} of {all} secrets fetched"),
            false => format!("{good} of {all} secrets fetched; {}", bad.join(", ")),
        }
    }
}
