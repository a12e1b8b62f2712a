//! The state of one secret.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::error::{Class, FetchError};
use crate::fingerprint::WINDOW;
use crate::lastgood::Kept;
use crate::manifest::{Entry, Staleness};
use crate::provider::Fetched;
use crate::secret::{LARGEST, Secret};

/// The provider must say twice, so far apart, that a secret is gone before the kept value goes too:
/// a bad token that somebody pushed is taken back sooner.
const CERTAIN: Duration = Duration::from_secs(300);

/// A value and what is known of it. Times are in seconds since 1970.
pub(super) struct Value {
    pub(super) secret: Arc<Secret>,
    pub(super) version: Option<String>,
    /// When the provider confirmed it last.
    pub(super) confirmed: u64,
    /// Whether it is last-known-good, and no provider has said anything in this boot.
    pub(super) earlier_boot: bool,
    /// Numbers the values of this boot.
    pub(super) serial: u64,
}

/// A secret.
pub(super) struct State {
    pub(super) value: Option<Value>,
    /// Of an earlier boot, not needed yet.
    kept: Option<Kept>,
    /// Of the last attempt.
    pub(super) error: Option<FetchError>,
    /// Whether the provider was asked at all.
    pub(super) settled: bool,
    /// When the provider first said that it is gone.
    withdrawn: Option<u64>,
}

/// What a consumer was given last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Served {
    /// The value of this number.
    Value(u64),
    /// Nothing.
    Nothing,
}

impl State {
    pub(super) fn new(kept: Option<Kept>) -> Self {
        Self {
            value: None,
            kept,
            error: None,
            settled: false,
            withdrawn: None,
        }
    }

    /// Whether the provider has to be asked for the value, not only for changes.
    pub(super) fn wanting(&self) -> bool {
        self.value.as_ref().is_none_or(|value| value.earlier_boot)
    }
}

impl Inner {
    /// Takes the value of an earlier boot, if there is one that is not too old.
    pub(super) fn adopt(&self, name: &str, entry: &Entry, state: &mut State) {
        let Some(kept) = &state.kept else { return };
        let age = Duration::from_secs(self.now().saturating_sub(kept.confirmed));
        if !entry.stale.allows(age, true) {
            log::warn!(
                "{name}: the last-known-good value is {} s old, and its staleness policy is {}",
                age.as_secs(),
                entry.stale
            );
            state.kept = None;
            return;
        }
        if let Some(kept) = state.kept.take() {
            log::warn!(
                "{name}: going on with the last-known-good value, confirmed {} s ago",
                age.as_secs()
            );
            let serial = self.blotting.add(&kept.value, entry.public);
            state.value = Some(Value {
                secret: kept.value,
                version: kept.version,
                confirmed: kept.confirmed,
                earlier_boot: true,
                serial,
            });
        }
    }

    /// Takes in what the provider gave for a secret. Whether it is a new value.
    pub(super) fn take(&self, name: &str, result: Result<Fetched, FetchError>) -> bool {
        let entry = &self.manifest.secrets[name];
        let now = self.now();
        let result = result.and_then(|fetched| check(entry, fetched));
        let mut table = self.table();
        let Some(state) = table.secrets.get_mut(name) else {
            return false;
        };
        let fetched = match result {
            Ok(fetched) => fetched,
            Err(error) => {
                self.fail(name, entry, state, error);
                return false;
            }
        };
        let serial = match &state.value {
            Some(old) if old.secret.same(&fetched.value) => Some(old.serial),
            _ => None,
        };
        let new = serial.is_none();
        let (secret, serial) = match (serial, state.value.take()) {
            (Some(serial), Some(old)) => (old.secret, serial),
            _ => {
                let secret = Arc::new(fetched.value);
                let serial = self.blotting.add(&secret, entry.public);
                (secret, serial)
            }
        };
        if state.error.take().is_some() || !state.settled || new {
            log::info!("{name}: fetched from {}", entry.reference);
        }
        state.value = Some(Value {
            secret,
            version: fetched.version,
            confirmed: now,
            earlier_boot: false,
            serial,
        });
        state.kept = None;
        state.settled = true;
        state.withdrawn = None;
        new
    }

    /// The provider says that nothing has changed.
    pub(super) fn confirm(&self, name: &str) {
        let now = self.now();
        let mut table = self.table();
        if let Some(state) = table.secrets.get_mut(name) {
            state.error = None;
            state.withdrawn = None;
            if let Some(value) = &mut state.value {
                value.confirmed = now;
            }
        }
    }

    /// Notes a failure to look for changes.
    pub(super) fn doubt(&self, name: &str, error: FetchError) {
        let entry = &self.manifest.secrets[name];
        let mut table = self.table();
        if let Some(state) = table.secrets.get_mut(name) {
            self.fail(name, entry, state, error);
        }
    }

    fn fail(&self, name: &str, entry: &Entry, state: &mut State, error: FetchError) {
        let said = state
            .error
            .as_ref()
            .is_some_and(|old| old.class == error.class && old.what == error.what);
        if !said {
            log::warn!("{name}: {error}");
        }
        if error.class.withdraws() {
            let now = self.now();
            let since = *state.withdrawn.get_or_insert(now);
            let kept = state.value.is_some() || state.kept.is_some();
            if kept && now.saturating_sub(since) >= CERTAIN.as_secs() {
                log::warn!("{name}: the provider has withdrawn it; the kept value is forgotten");
                state.value = None;
                state.kept = None;
            }
        }
        state.error = Some(error);
        state.settled = true;
        if state.value.is_none() {
            self.adopt(name, entry, state);
        }
    }

    /// What is to be there at the next boot.
    fn kept(&self) -> Vec<Kept> {
        let mut values = Vec::new();
        for (name, state) in &self.table().secrets {
            let entry = &self.manifest.secrets[name];
            if entry.stale == Staleness::Never {
                continue;
            }
            let kept = match (&state.value, &state.kept) {
                (Some(value), _) => Kept {
                    name: name.clone(),
                    reference: entry.reference.to_string(),
                    version: value.version.clone(),
                    confirmed: value.confirmed,
                    value: value.secret.clone(),
                },
                (None, Some(kept)) => Kept {
                    name: name.clone(),
                    reference: kept.reference.clone(),
                    version: kept.version.clone(),
                    confirmed: kept.confirmed,
                    value: kept.value.clone(),
                },
                (None, None) => continue,
            };
            values.push(kept);
        }
        values
    }

    /// Keeps the values for the next boot.
    pub(super) async fn keep(&self) {
        let Some(last_good) = &self.last_good else {
            return;
        };
        let values = self.kept();
        if let Err(error) = last_good.write(&values).await {
            log::warn!("the secrets are not kept for the next boot: {error}");
        }
    }
}

/// Whether a value can be handed out at all.
fn check(entry: &Entry, fetched: Fetched) -> Result<Fetched, FetchError> {
    let fail = |class, what: String| Err(FetchError::new(class, what).of(&entry.reference));
    match fetched.value.len() {
        0 => fail(Class::Invalid, "the value is empty".into()),
        length if length > LARGEST => fail(
            Class::TooLarge,
            format!("the value is larger than {LARGEST} bytes, and systemd takes no larger one"),
        ),
        length if length < WINDOW && !entry.public => fail(
            Class::Invalid,
            format!(
                "the value is shorter than {WINDOW} bytes, so it could not be kept out of logs: \
                 make it longer, or mark it public = true if it is not secret"
            ),
        ),
        _ => Ok(fetched),
    }
}
