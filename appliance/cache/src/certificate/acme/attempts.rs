//! When the next order may be made: kept in a file, so that a service that restarts again and again
//! does not use up what an authority allows.
//!
//! ```text
//! failures: 2
//! not before: 1790000000
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certificate::kept::keep;

/// Name of the file.
const FILE: &str = "attempts";
/// Pause after the first failure. Authorities allow about five failures an hour.
const FIRST: Duration = Duration::from_secs(15 * 60);
/// Longest pause that we take by ourselves.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// What became of earlier orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    folder: PathBuf,
    failures: u32,
    /// Seconds since 1970.
    not_before: u64,
}

impl Attempts {
    /// As the file says; without one, or with a broken one, an order may be made.
    pub(super) fn open(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join(FILE)).unwrap_or_default();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        Self {
            folder: folder.into(),
            failures: number("failures:").map_or(0, |failures| failures.min(32) as u32),
            not_before: number("not before:").unwrap_or(0),
        }
    }

    /// How long to wait yet at `now`, in seconds since 1970. A clock that was set back does not
    /// make it longer than the longest pause of an authority.
    pub(super) fn wait(&self, now: u64) -> Option<Duration> {
        let left = self.not_before.checked_sub(now).filter(|left| *left > 0)?;
        Some(Duration::from_secs(left.min(7 * 86_400)))
    }

    /// An order begins: as if it had failed, until it is known that it did not.
    pub(super) fn begins(&mut self, now: u64) -> Result<(), String> {
        self.failures = (self.failures + 1).min(32);
        self.not_before = now + self.pause().as_secs();
        self.keep()
    }

    /// It failed; `wait` is what the authority asks for.
    pub(super) fn failed(&mut self, now: u64, wait: Option<Duration>) {
        let pause = self.pause().max(wait.unwrap_or_default());
        self.not_before = now + pause.as_secs();
        if let Err(error) = self.keep() {
            log::warn!("{error}");
        }
    }

    /// It gave a certificate.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.not_before) = (0, 0);
        if let Err(error) = self.keep() {
            log::warn!("{error}");
        }
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        (FIRST * 2_u32.pow(doublings)).min(LONGEST)
    }

    fn keep(&self) -> Result<(), String> {
        let text = format!(
            "failures: {}\nnot before: {}\n",
            self.failures, self.not_before
        );
        keep(&self.folder, FILE, text.as_bytes()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_outlive_restarts_and_follow_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        let mut attempts = Attempts::open(folder.path());
        assert_eq!(attempts.wait(1000), None);
        attempts.begins(1000).unwrap();
        // Killed in the middle of the order: the next start waits.
        let mut attempts = Attempts::open(folder.path());
        assert_eq!(attempts.wait(1000), Some(FIRST));
        attempts.failed(1000, None);
        assert_eq!(attempts.wait(1000 + 900), None);
        attempts.begins(2000).unwrap();
        attempts.failed(2000, None);
        assert_eq!(attempts.wait(2000), Some(2 * FIRST));
        attempts.failed(2000, Some(Duration::from_secs(100_000)));
        assert_eq!(
            Attempts::open(folder.path()).wait(2000),
            Some(Duration::from_secs(100_000))
        );
        for _ in 0..100 {
            attempts.begins(2000).unwrap();
        }
        assert_eq!(attempts.wait(2000), Some(LONGEST));
        attempts.succeeded();
        assert_eq!(Attempts::open(folder.path()).wait(0), None);
        std::fs::write(folder.path().join(FILE), "noise").unwrap();
        assert_eq!(Attempts::open(folder.path()).wait(0), None);
    }
}
