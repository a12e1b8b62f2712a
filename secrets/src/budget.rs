//! A budget of requests that outlives the process: a crash loop cannot burn a daily quota.
//!
//! A token bucket, kept in a file that is replaced before each request is sent. What is written is
//! `{"tokens":…,"at":…}`: requests left at a time in seconds since 1970.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Class, FetchError};
use crate::files::replace;
use crate::manifest;
use crate::transport::{Origin, Pending, Request, Response, Transport};

/// A budget of requests to one provider.
pub struct Budget {
    limits: manifest::Budget,
    /// `None`: only in memory.
    path: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Requests since the process began.
    taken: AtomicU64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct State {
    /// Requests left.
    tokens: f64,
    /// Seconds since 1970 at which that was so.
    at: f64,
}

impl Budget {
    /// Goes on where the file stopped. Without a file, or with a broken one, it begins full.
    pub fn open(limits: manifest::Budget, path: Option<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        let now = clock.now().as_secs_f64();
        let full = State {
            tokens: f64::from(limits.burst),
            at: now,
        };
        let kept = path.as_deref().and_then(read);
        let state = match kept {
            // A clock that was set back must not stop us for as long as it was ahead.
            Some(kept) => State {
                tokens: kept.tokens.clamp(0.0, full.tokens),
                at: kept.at.min(now),
            },
            None => full,
        };
        Self {
            limits,
            path,
            clock,
            state: Mutex::new(state),
            taken: AtomicU64::new(0),
        }
    }

    /// Requests that were sent since the process began.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Requests that may be sent now.
    pub fn left(&self) -> f64 {
        self.refilled().1.tokens
    }

    /// Whether at least half is left, so that what is merely nice may be asked.
    pub fn comfortable(&self) -> bool {
        self.left() >= f64::from(self.limits.burst) / 2.0
    }

    fn refilled(&self) -> (std::sync::MutexGuard<'_, State>, State) {
        let guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().as_secs_f64();
        let passed = (now - guard.at).max(0.0);
        let tokens = guard.tokens + passed * f64::from(self.limits.per_hour) / 3600.0;
        let state = State {
            tokens: tokens.min(f64::from(self.limits.burst)),
            at: now,
        };
        (guard, state)
    }

    /// Takes one request out, on disk before it returns.
    pub fn take(&self) -> Result<(), FetchError> {
        let (mut guard, mut state) = self.refilled();
        if state.tokens < 1.0 {
            let wait = (1.0 - state.tokens) * 3600.0 / f64::from(self.limits.per_hour);
            let what = format!(
                "the budget of {} requests, and {} more an hour, is used up",
                self.limits.burst, self.limits.per_hour
            );
            return Err(FetchError::new(Class::Budget, what)
                .after(Some(Duration::from_secs_f64(wait.ceil()))));
        }
        state.tokens -= 1.0;
        *guard = state;
        if let Some(path) = &self.path {
            write(path, &state).map_err(|error| {
                let what = format!("cannot keep the budget of requests: {error}");
                FetchError::new(Class::Local, what).at(path.display())
            })?;
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn read(path: &Path) -> Option<State> {
    parse(&std::fs::read(path).ok()?)
}

fn parse(text: &[u8]) -> Option<State> {
    let state: State = serde_json::from_slice(text).ok()?;
    (state.tokens.is_finite() && state.at.is_finite()).then_some(state)
}

fn write(path: &Path, state: &State) -> std::io::Result<()> {
    let text = serde_json::to_vec(state)?;
    replace(path, &text)
}

/// Fuzz target: no bytes may panic what reads the file.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = parse(bytes);
}

/// Sends requests as long as the budget lasts.
pub struct Budgeted<T> {
    /// Sends them.
    pub transport: T,
    /// Counts them.
    pub budget: Arc<Budget>,
}

impl<T: Transport> Transport for Budgeted<T> {
    fn send<'a>(
        &'a self,
        origin: &'a Origin,
        request: Request,
    ) -> Pending<'a, Result<Response, FetchError>> {
        Box::pin(async move {
            self.budget.take().map_err(|error| error.at(origin))?;
            self.transport.send(origin, request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Manual;

    const LIMITS: manifest::Budget = manifest::Budget {
        burst: 3,
        per_hour: 60,
    };

    #[test]
    fn it_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = Some(folder.path().join("budget"));
        let clock = Arc::new(Manual::at(1_800_000_000));
        for left in [2, 1, 0] {
            // A new one each time, as after kill -9.
            let budget = Budget::open(LIMITS, path.clone(), clock.clone());
            budget.take().unwrap();
            assert_eq!(budget.left() as u32, left);
        }
        let budget = Budget::open(LIMITS, path.clone(), clock.clone());
        let error = budget.take().unwrap_err();
        assert_eq!(error.class, Class::Budget);
        assert_eq!(error.retry_after, Some(Duration::from_secs(60)));
        clock.advance(Duration::from_secs(60));
        Budget::open(LIMITS, path, clock).take().unwrap();
    }

    #[test]
    fn a_clock_set_back_and_a_broken_file_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budget");
        let clock = Arc::new(Manual::at(1_800_000_000));
        std::fs::write(&path, r#"{"tokens":0,"at":2e9}"#).unwrap();
        let budget = Budget::open(LIMITS, Some(path.clone()), clock.clone());
        clock.advance(Duration::from_secs(60));
        budget.take().unwrap();
        for broken in ["", "{", r#"{"tokens":1e999,"at":0}"#, "null"] {
            std::fs::write(&path, broken).unwrap();
            let budget = Budget::open(LIMITS, Some(path.clone()), clock.clone());
            assert_eq!(budget.left() as u32, 3, "{broken}");
        }
    }

    #[test]
    fn without_a_place_to_keep_it_nothing_is_sent() {
        let clock = Arc::new(Manual::at(0));
        let budget = Budget::open(LIMITS, Some("/proc/none/budget".into()), clock);
        assert_eq!(budget.take().unwrap_err().class, Class::Local);
    }
}
