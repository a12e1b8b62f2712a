//! Waiting longer after each failure, each machine differently.

use std::time::Duration;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest wait that a receiver may ask for.
const ASKED: Duration = Duration::from_secs(300);

/// Waits that double from half a second to a minute, each shortened by up to a half at random.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait; at least what the receiver asked for, within reason.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let full = (FIRST * 2u32.pow(self.failures.min(10))).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let waited = full.mul_f64(1.0 - jitter() / 2.0);
        waited.max(asked.unwrap_or_default().min(ASKED))
    }

    /// There was a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number from 0 to 1 that differs from machine to machine and from call to call.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hasher is seeded by the kernel.
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_minute_and_starts_over() {
        let mut backoff = Backoff::default();
        let mut full = FIRST;
        for _ in 0..20 {
            let wait = backoff.next(None);
            assert!(wait <= full && wait >= full / 2, "{wait:?}");
            full = (full * 2).min(LONGEST);
        }
        assert_eq!(
            backoff.next(Some(Duration::from_secs(200))),
            Duration::from_secs(200)
        );
        assert_eq!(backoff.next(Some(Duration::from_secs(9999))), ASKED);
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }
}
