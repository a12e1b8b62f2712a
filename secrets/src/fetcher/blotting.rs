//! Fingerprints of all values, and who has acknowledged them: no consumer gets a value that it could
//! log before the shipper knows how to blot it out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::FetchError;
use crate::fingerprint::{Fingerprint, Key};
use crate::secret::Secret;

/// Fingerprints that are kept; a provider that gives another value at every look drops the oldest.
const MOST: usize = 50_000;

/// Fingerprints of the boot.
pub struct Blotting {
    key: Key,
    shared: Arc<Shared>,
}

struct Shared {
    set: Mutex<Set>,
    /// The number of the last value.
    latest: watch::Sender<u64>,
    /// Moves on when a watcher acknowledges, comes or goes.
    acknowledged: watch::Sender<u64>,
}

#[derive(Default)]
struct Set {
    latest: u64,
    /// All of this boot: old values still come up in logs.
    fingerprints: Vec<Fingerprint>,
    /// Units that watch, and up to which number they know.
    watchers: Vec<(u64, String, u64)>,
    next: u64,
    /// When each value came.
    arrived: Vec<(u64, Instant)>,
}

/// Who blots values out. Its acknowledgement is waited for until it is dropped.
pub struct Watcher {
    shared: Arc<Shared>,
    id: u64,
    latest: watch::Receiver<u64>,
    begun: bool,
}

impl Shared {
    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blotting {
    pub(super) fn new() -> Result<Self, FetchError> {
        Ok(Self {
            key: Key::new()?,
            shared: Arc::new(Shared {
                set: Mutex::default(),
                latest: watch::Sender::new(0),
                acknowledged: watch::Sender::new(0),
            }),
        })
    }

    /// The keys of the boot.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Takes a value in. Its number.
    pub(super) fn add(&self, value: &Secret, public: bool) -> u64 {
        let fingerprints = match public {
            true => Vec::new(),
            false => self.key.of(value.expose()),
        };
        let mut set = self.shared.set();
        set.latest += 1;
        let number = set.latest;
        set.fingerprints.extend(fingerprints);
        let over = set.fingerprints.len().saturating_sub(MOST);
        set.fingerprints.drain(..over);
        set.arrived.push((number, Instant::now()));
        if set.arrived.len() > 1000 {
            set.arrived.drain(..500);
        }
        drop(set);
        self.shared.latest.send_replace(number);
        number
    }

    /// All fingerprints, and the number of the last value in them.
    pub fn all(&self) -> (u64, Vec<Fingerprint>) {
        let set = self.shared.set();
        (set.latest, set.fingerprints.clone())
    }

    /// Begins to watch, as a unit.
    pub fn watch(&self, unit: &str) -> Watcher {
        let mut set = self.shared.set();
        let id = set.next;
        set.next += 1;
        set.watchers.push((id, unit.to_owned(), 0));
        drop(set);
        Watcher {
            shared: self.shared.clone(),
            id,
            latest: self.shared.latest.subscribe(),
            begun: false,
        }
    }

    /// Waits until all watchers but the unit itself know the value, at most for a while after it
    /// came. Where nobody watches nothing is shipped, so there is nothing to wait for.
    pub(super) async fn wait(&self, number: u64, unit: &str, longest: Duration) {
        let mut changes = self.shared.acknowledged.subscribe();
        loop {
            changes.borrow_and_update();
            let deadline = {
                let set = self.shared.set();
                let known = set
                    .watchers
                    .iter()
                    .all(|(_, watcher, known)| *known >= number || watcher == unit);
                let arrived = set.arrived.iter().find(|(n, _)| *n == number);
                match arrived {
                    Some((_, arrived)) if !known => *arrived + longest,
                    _ => return,
                }
            };
            if Instant::now() >= deadline {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {}
                _ = changes.changed() => {}
            }
        }
    }
}

impl Watcher {
    /// Waits until there are fingerprints that it has not been given: at once at first.
    pub async fn next(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            // The sender lives as long as what we share.
            let _ = self.latest.changed().await;
        }
        self.latest.borrow_and_update();
    }

    /// It knows all values up to this number.
    pub fn acknowledge(&self, number: u64) {
        let mut set = self.shared.set();
        for (_, _, known) in set.watchers.iter_mut().filter(|(id, ..)| *id == self.id) {
            *known = number;
        }
        drop(set);
        self.shared.acknowledged.send_modify(|count| *count += 1);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.set().watchers.retain(|(id, ..)| *id != self.id);
        self.shared.acknowledged.send_modify(|count| *count += 1);
    }
}
