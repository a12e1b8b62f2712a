//! The time of day, which tests set.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// Time since 1970.
    fn now(&self) -> Duration;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// A clock that moves with tokio's, which tests may pause, and by hand.
#[derive(Debug)]
pub struct Manual {
    began: tokio::time::Instant,
    offset: Mutex<Duration>,
}

impl Manual {
    /// Begins at a time in seconds since 1970.
    pub fn at(seconds: u64) -> Self {
        Self {
            began: tokio::time::Instant::now(),
            offset: Mutex::new(Duration::from_secs(seconds)),
        }
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        *self
            .offset
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }
}

impl Clock for Manual {
    fn now(&self) -> Duration {
        let offset = *self
            .offset
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        offset + self.began.elapsed()
    }
}
