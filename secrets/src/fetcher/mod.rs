//! The fetcher: keeps the value of every secret, and knows who has been given which.
//!
//! Each provider has a worker of its own (`worker`), so that one that hangs holds up no other; each
//! secret has a state of its own (`state`), so that a bad reference blocks nobody else. What has
//! changed reaches its consumers by `rotation`; logs are kept clean by `blotting`.

mod blotting;
mod rotation;
mod sources;
mod state;
mod status;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::error::{Class, FetchError};
use crate::lastgood::LastGood;
use crate::manifest::{Consumer, Entry, Manifest};
use crate::provider::Provider;
use crate::reference::Scheme;
use crate::secret::Secret;

pub use blotting::{Blotting, Watcher};
pub use rotation::{Systemctl, Units};
pub use sources::sources;
pub use status::{ProviderStatus, STATUS, SecretStatus, Status};

use state::{Served, State};

/// How the fetcher waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a unit may be made to wait at its start for all its secrets together. A required
    /// secret that is missing then makes systemd fail the unit; so long, and the limit of starts
    /// is never hit.
    pub required: Duration,
    /// The same where only optional ones are missing.
    pub optional: Duration,
    /// How long to wait for the provider before a last-known-good value is taken.
    pub last_good: Duration,
    /// How long a new value is held back for the acknowledgement of the shipper.
    pub blotting: Duration,
    /// A value that is as fresh as this is not asked for again when a unit restarts.
    pub fresh: Duration,
    /// How long a restarting unit may wait for a look whether its secrets have changed.
    pub look: Duration,
    /// Changes that come within this time reach a unit as one.
    pub quiesce: Duration,
    /// Least time between two actions on one unit.
    pub between_actions: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            required: seconds(40),
            optional: seconds(20),
            last_good: seconds(10),
            blotting: seconds(2),
            fresh: seconds(5),
            look: seconds(5),
            quiesce: seconds(2),
            between_actions: seconds(30),
        }
    }
}

/// A provider and what it may be sent.
pub struct Source {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// Its budget; none for what is on the machine.
    pub budget: Option<Arc<Budget>>,
}

/// What the fetcher works with.
pub struct Environment {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The providers of the manifest.
    pub sources: BTreeMap<Scheme, Source>,
    /// Where values outlive the boot. `None`: nowhere.
    pub last_good: Option<LastGood>,
    /// Restarts and reloads.
    pub units: Arc<dyn Units>,
}

/// What a consumer gets.
#[derive(Debug)]
pub enum Reply {
    /// The value.
    Value(Arc<Secret>),
    /// Nothing, and that does: the secret is optional.
    Absent,
    /// Nothing, and the unit must not start.
    Fail,
    /// It is none of the consumer's.
    Denied,
}

/// Keeps the secrets of a manifest.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    manifest: Manifest,
    patience: Patience,
    clock: Arc<dyn Clock>,
    budgets: BTreeMap<Scheme, Arc<Budget>>,
    last_good: Option<LastGood>,
    table: Mutex<Table>,
    /// Moves on with every change of the table.
    changed: watch::Sender<u64>,
    pokes: BTreeMap<Scheme, mpsc::Sender<Poke>>,
    blotting: Blotting,
    actions: mpsc::UnboundedSender<String>,
    served: status::Served,
}

/// What changes.
struct Table {
    secrets: BTreeMap<String, State>,
    served: HashMap<Consumer, Served>,
    /// When a start of a unit asked first.
    starts: HashMap<(String, String), Instant>,
}

/// Wakes a worker.
enum Poke {
    /// Fetch everything anew, whatever was the matter before: a person wants it.
    All,
    /// Look for changes, unless there is a reason not to ask now.
    Look(oneshot::Sender<()>),
}

impl Fetcher {
    /// Begins to fetch. Ends when the last clone is dropped.
    pub async fn start(
        manifest: Manifest,
        patience: Patience,
        environment: Environment,
    ) -> Result<Self, FetchError> {
        let Environment {
            clock,
            sources,
            last_good,
            units,
        } = environment;
        let kept = match &last_good {
            Some(last_good) => last_good.read().await.unwrap_or_else(|error| {
                log::warn!("beginning without last-known-good secrets: {error}");
                Vec::new()
            }),
            None => Vec::new(),
        };
        let mut kept: BTreeMap<_, _> = kept.into_iter().map(|k| (k.name.clone(), k)).collect();
        let state = |(name, entry): (&String, &Entry)| {
            let kept = kept.remove(name);
            // Under another reference it was another secret.
            let kept = kept.filter(|kept| kept.reference == entry.reference.to_string());
            (name.clone(), State::new(kept))
        };
        let secrets = manifest.secrets.iter().map(state).collect();
        let (pokes, workers): (BTreeMap<_, _>, Vec<_>) = sources
            .into_iter()
            .map(|(scheme, source)| {
                let (sender, receiver) = mpsc::channel(64);
                ((scheme, sender), (scheme, source, receiver))
            })
            .unzip();
        let budget = |(scheme, source, _): &(Scheme, Source, _)| {
            source.budget.clone().map(|budget| (*scheme, budget))
        };
        let (actions, queue) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            budgets: workers.iter().filter_map(budget).collect(),
            manifest,
            patience,
            clock,
            last_good,
            table: Mutex::new(Table {
                secrets,
                served: HashMap::new(),
                starts: HashMap::new(),
            }),
            changed: watch::Sender::new(0),
            pokes,
            blotting: Blotting::new()?,
            actions,
            served: status::Served::default(),
        });
        for (scheme, source, pokes) in workers {
            worker::start(Arc::downgrade(&inner), scheme, source, pokes);
        }
        rotation::start(Arc::downgrade(&inner), units, queue);
        Ok(Self(inner))
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Fingerprints and who has them.
    pub fn blotting(&self) -> &Blotting {
        &self.0.blotting
    }

    /// Fetches everything anew (SIGHUP).
    pub fn reload(&self) {
        for poke in self.0.pokes.values() {
            // A full queue has one in it that does.
            let _ = poke.try_send(Poke::All);
        }
    }

    /// Is ready after the next change of anything.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// What a unit gets as a credential at its start. `start` names the start (systemd's invocation
    /// id), so that a unit that asks several times within one is given the same time and answers.
    pub async fn serve(&self, consumer: &Consumer, start: Option<&str>) -> Reply {
        let reply = self.answer(consumer, start).await;
        self.0.served.count(&reply);
        reply
    }

    async fn answer(&self, consumer: &Consumer, start: Option<&str>) -> Reply {
        let Some((name, entry)) = self.0.manifest.find(consumer) else {
            return Reply::Denied;
        };
        let (began, new) = self.0.begin(&consumer.unit, start);
        if new {
            self.0.look(entry).await;
        }
        let patience = &self.0.patience;
        let patient = match entry.required {
            true => patience.required,
            false => patience.optional,
        };
        let found = self.0.wait(name, entry, began, began + patient).await;
        let reply = match found {
            Some((value, serial)) => {
                self.0
                    .blotting
                    .wait(serial, &consumer.unit, patience.blotting)
                    .await;
                self.0.note(consumer, Served::Value(serial));
                return Reply::Value(value);
            }
            None if entry.required => Reply::Fail,
            None => Reply::Absent,
        };
        self.0.note(consumer, Served::Nothing);
        reply
    }

    /// The value that a running consumer reads anew, without waiting for the provider.
    pub async fn current(&self, consumer: &Consumer) -> Result<Reply, Class> {
        let Some((name, entry)) = self.0.manifest.find(consumer) else {
            return Ok(Reply::Denied);
        };
        match self.0.usable(name, entry, true) {
            Some((value, serial)) => {
                let patience = self.0.patience.blotting;
                self.0.blotting.wait(serial, &consumer.unit, patience).await;
                self.0.note(consumer, Served::Value(serial));
                Ok(Reply::Value(value))
            }
            None => {
                let table = self.0.table();
                let state = &table.secrets[name];
                match &state.error {
                    Some(error) if !error.class.withdraws() => Err(error.class),
                    Some(_) => Ok(Reply::Absent),
                    None => Err(Class::Unavailable),
                }
            }
        }
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since 1970, in seconds.
    fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    /// When this start of the unit asked first, and whether that is now.
    fn begin(&self, unit: &str, start: Option<&str>) -> (Instant, bool) {
        let now = Instant::now();
        let Some(start) = start else {
            return (now, true);
        };
        let mut table = self.table();
        if table.starts.len() > 1000 {
            let old = now.checked_sub(Duration::from_secs(600));
            table
                .starts
                .retain(|_, began| old.is_none_or(|old| *began > old));
        }
        let key = (unit.to_owned(), start.to_owned());
        let new = !table.starts.contains_key(&key);
        (*table.starts.entry(key).or_insert(now), new)
    }

    /// Looks whether the provider has something newer, as far as patience and budget allow.
    async fn look(&self, entry: &Entry) {
        let scheme = entry.reference.scheme();
        let settled = self.table().secrets.iter().all(|(name, state)| {
            self.manifest.secrets[name].reference.scheme() != scheme || state.settled
        });
        let comfortable = self
            .budgets
            .get(&scheme)
            .is_none_or(|budget| budget.comfortable());
        // The first fetch is on its way anyway.
        if !settled || !comfortable {
            return;
        }
        let Some(poke) = self.pokes.get(&scheme) else {
            return;
        };
        let (done, wait) = oneshot::channel();
        if poke.try_send(Poke::Look(done)).is_ok() {
            let _ = tokio::time::timeout(self.patience.look, wait).await;
        }
    }

    /// Waits for a value: until the deadline, or until it is known that there is none.
    async fn wait(
        &self,
        name: &str,
        entry: &Entry,
        began: Instant,
        deadline: Instant,
    ) -> Option<(Arc<Secret>, u64)> {
        let mut changes = self.changed.subscribe();
        let last_good = began + self.patience.last_good;
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            if let Some(found) = self.usable(name, entry, now >= last_good) {
                return Some(found);
            }
            // Nobody waits for an optional one that the provider does not give.
            let settled = self.table().secrets[name].settled;
            if now >= deadline || (settled && !entry.required) {
                return None;
            }
            let next = if now < last_good {
                last_good.min(deadline)
            } else {
                deadline
            };
            tokio::select! {
                _ = tokio::time::sleep_until(next) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// A value that may be handed out, and its number.
    fn usable(&self, name: &str, entry: &Entry, last_good: bool) -> Option<(Arc<Secret>, u64)> {
        let now = self.now();
        let mut table = self.table();
        let state = table.secrets.get_mut(name)?;
        if state.value.is_none() && (last_good || state.settled) {
            self.adopt(name, entry, state);
        }
        let value = state.value.as_ref()?;
        let age = Duration::from_secs(now.saturating_sub(value.confirmed));
        entry
            .stale
            .allows(age, value.earlier_boot)
            .then(|| (value.secret.clone(), value.serial))
    }

    fn note(&self, consumer: &Consumer, served: Served) {
        let mut table = self.table();
        table.served.insert(consumer.clone(), served);
    }
}
