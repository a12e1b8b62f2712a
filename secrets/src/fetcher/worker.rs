//! One provider: fetches, looks for changes, and knows when not to ask.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Inner, Poke, Source};
use crate::backoff::{Backoff, spread};
use crate::error::{Class, FetchError};
use crate::provider::Fetched;
use crate::reference::{Reference, Scheme};

/// How long a provider that refuses the token, or counts requests, is left alone.
const BREAK: Duration = Duration::from_secs(900);
/// Values are written anew at least so often, so that their age on disk is about right.
const KEEP: Duration = Duration::from_secs(3600);

struct Worker {
    scheme: Scheme,
    source: Source,
    poll: Option<Duration>,
    backoff: Backoff,
    /// When the provider may be asked again after a failure.
    pause: Option<Instant>,
    /// End of the last round that went well.
    asked: Option<Instant>,
    kept: Option<Instant>,
}

/// Starts the worker of a provider. It ends with the fetcher.
pub(super) fn start(
    inner: Weak<Inner>,
    scheme: Scheme,
    source: Source,
    mut pokes: mpsc::Receiver<Poke>,
) {
    tokio::spawn(async move {
        let Some(first) = inner.upgrade() else { return };
        let provider = first.manifest.providers.get(&scheme);
        let mut worker = Worker {
            scheme,
            source,
            poll: provider.and_then(|provider| provider.poll),
            backoff: Backoff::new(),
            pause: None,
            asked: None,
            kept: None,
        };
        let mut next = worker.round(&first, true).await;
        drop(first);
        loop {
            let timer = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            let poke = tokio::select! {
                poke = pokes.recv() => match poke {
                    Some(poke) => Some(poke),
                    None => return,
                },
                () = timer => None,
            };
            let Some(inner) = inner.upgrade() else { return };
            match poke {
                None => next = worker.round(&inner, false).await,
                Some(Poke::All) => {
                    worker.source.provider.renew().await;
                    next = worker.round(&inner, true).await;
                }
                Some(Poke::Look(done)) => {
                    if worker.may_look(&inner) {
                        next = worker.round(&inner, false).await;
                    }
                    // Whoever asked may be gone.
                    let _ = done.send(());
                }
            }
        }
    });
}

impl Worker {
    /// Whether a look for changes makes sense and is affordable now.
    fn may_look(&self, inner: &Inner) -> bool {
        let now = Instant::now();
        let fresh = self
            .asked
            .is_some_and(|asked| now - asked < inner.patience.fresh);
        self.pause.is_none_or(|pause| now >= pause) && !fresh
    }

    /// Asks once for everything that is due. When to do it again; `None`: when poked.
    async fn round(&mut self, inner: &Inner, all: bool) -> Option<Instant> {
        let names: Vec<&String> = inner
            .manifest
            .secrets
            .iter()
            .filter(|(_, entry)| entry.reference.scheme() == self.scheme)
            .map(|(name, _)| name)
            .collect();
        if names.is_empty() {
            return None;
        }
        let mut worst: Option<FetchError> = None;
        let mut changed = false;
        let due = match all {
            true => names.clone(),
            false => self.look(inner, &names, &mut worst).await,
        };
        // After a failure of the provider there is no use in asking it more.
        if worst.is_none() && !due.is_empty() {
            changed = self.fetch(inner, &due, &mut worst).await;
        }
        inner.changed.send_modify(|number| *number += 1);
        let now = Instant::now();
        let due = worst.is_none() && self.kept.is_none_or(|kept| now - kept >= KEEP);
        if changed || due {
            inner.keep().await;
            self.kept = Some(now);
        }
        let next = self.next(worst.as_ref()).map(|wait| now + wait);
        self.pause = worst.is_some().then(|| next.unwrap_or(now));
        if worst.is_none() {
            self.asked = Some(now);
        }
        next
    }

    fn next(&mut self, worst: Option<&FetchError>) -> Option<Duration> {
        let Some(error) = worst else {
            self.backoff.reset();
            return self.poll.map(spread);
        };
        let wanted = error.retry_after.unwrap_or_default();
        Some(match error.class {
            // On this machine only a person changes that, and sends SIGHUP.
            Class::Unauthorized if self.poll.is_none() => return None,
            Class::Unauthorized => spread(BREAK),
            Class::RateLimited if error.retry_after.is_none() => spread(BREAK),
            Class::RateLimited | Class::Budget => spread(wanted).max(wanted),
            _ => self.backoff.wait().max(wanted),
        })
    }

    /// Looks for changes. What is to be fetched: what has changed, may have changed, or is missing.
    async fn look<'a>(
        &self,
        inner: &Inner,
        names: &[&'a String],
        worst: &mut Option<FetchError>,
    ) -> Vec<&'a String> {
        let (wanting, known): (Vec<&String>, Vec<&String>) = {
            let table = inner.table();
            names
                .iter()
                .partition(|name| table.secrets[**name].wanting())
        };
        let mut due = wanting;
        if known.is_empty() {
            return due;
        }
        let references = distinct(inner, &known);
        let versions = self.source.provider.versions(&references).await;
        let versions: BTreeMap<&Reference, _> = references.iter().zip(versions).collect();
        for name in known {
            match versions.get(&inner.manifest.secrets[name].reference) {
                Some(Ok(version)) => {
                    let same = {
                        let table = inner.table();
                        let value = table.secrets[name].value.as_ref();
                        version.is_some() && value.is_some_and(|value| value.version == *version)
                    };
                    if same {
                        inner.confirm(name);
                    } else {
                        due.push(name);
                    }
                }
                Some(Err(error)) => {
                    note(worst, error);
                    inner.doubt(name, error.clone());
                }
                None => due.push(name),
            }
        }
        due
    }

    /// Fetches. Whether there is a new value.
    async fn fetch(
        &self,
        inner: &Inner,
        names: &[&String],
        worst: &mut Option<FetchError>,
    ) -> bool {
        let references = distinct(inner, names);
        let results = self.source.provider.fetch(&references).await;
        let mut changed = false;
        for (reference, result) in references.iter().zip(results) {
            if let Err(error) = &result {
                note(worst, error);
            }
            let users: Vec<&&String> = names
                .iter()
                .filter(|name| inner.manifest.secrets[**name].reference == *reference)
                .collect();
            let (last, others) = match users.split_last() {
                Some(split) => split,
                None => continue,
            };
            for name in others {
                let copy = match &result {
                    Ok(fetched) => copy(fetched),
                    Err(error) => Err(error.clone()),
                };
                changed |= self.take(inner, name, copy);
            }
            changed |= self.take(inner, last, result);
        }
        changed
    }

    fn take(&self, inner: &Inner, name: &str, result: Result<Fetched, FetchError>) -> bool {
        let new = inner.take(name, result);
        if new {
            // Nobody listens only when everything ends.
            let _ = inner.actions.send(name.to_owned());
        }
        new
    }
}

fn copy(fetched: &Fetched) -> Result<Fetched, FetchError> {
    Ok(Fetched {
        value: crate::Secret::copy_of(fetched.value.expose())?,
        version: fetched.version.clone(),
    })
}

fn distinct(inner: &Inner, names: &[&String]) -> Vec<Reference> {
    let references = names
        .iter()
        .map(|name| inner.manifest.secrets[*name].reference.clone());
    let references: std::collections::BTreeSet<Reference> = references.collect();
    references.into_iter().collect()
}

/// Remembers a failure of the provider, the one that needs the longest wait; words on a single
/// reference are none.
fn note(worst: &mut Option<FetchError>, error: &FetchError) {
    let rank = |error: &FetchError| match error.class {
        Class::Unauthorized => 3,
        Class::RateLimited => 2,
        Class::Budget => 1,
        _ => 0,
    };
    let worse = worst.as_ref().is_none_or(|old| rank(error) > rank(old));
    if !error.class.authoritative() && worse {
        *worst = Some(error.clone());
    }
}
