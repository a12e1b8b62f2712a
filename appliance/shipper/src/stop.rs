//! Waiting that ends early when the service stops or is told to try again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    /// How often it was said to hurry.
    hurries: u64,
}

/// Told by one thread, heeded by many.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<State>, Condvar)>);

impl Stop {
    /// The service is to stop.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.0.1.notify_all();
    }

    /// Whoever waits for a receiver is to try at once.
    pub fn hurry(&self) {
        self.lock().hurries += 1;
        self.0.1.notify_all();
    }

    /// How often it was told to hurry.
    pub(crate) fn hurries(&self) -> u64 {
        self.lock().hurries
    }

    /// Whether the service is to stop.
    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits, showing life meanwhile. `true`: it was told to hurry, or to stop.
    pub(crate) fn wait(&self, patience: Duration, alive: &Alive) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        let hurries = state.hurries;
        loop {
            alive.show();
            let left = end.saturating_duration_since(Instant::now());
            if state.stopping || state.hurries != hurries {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            let waited = self
                .0
                .1
                .wait_timeout(state, left.min(Duration::from_secs(5)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sign of life of a thread.
#[derive(Clone, Debug)]
pub(crate) struct Alive {
    begin: Instant,
    last: Arc<AtomicU64>,
}

impl Alive {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            last: Arc::default(),
        }
    }

    /// This thread is alive.
    pub(crate) fn show(&self) {
        self.last
            .store(self.begin.elapsed().as_secs(), Ordering::Relaxed);
    }

    /// How long ago it was.
    pub(crate) fn ago(&self) -> Duration {
        let last = Duration::from_secs(self.last.load(Ordering::Relaxed));
        self.begin.elapsed().saturating_sub(last)
    }
}
