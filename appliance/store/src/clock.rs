//! What the time is, for the store; tests set it, back as well.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock.
pub(crate) trait Clock: Send + Sync + Debug {
    /// Milliseconds since 1970.
    fn now(&self) -> u64;
}

/// The clock of the machine.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }
}

/// The minute of a time, wrapping; never 0, which means "not held".
pub(crate) fn minute(ms: u64) -> u16 {
    ((ms / 60_000) % 65_535 + 1) as u16
}

/// Longest hold in minutes: a wrapped minute within this many of now is in the future.
pub(crate) const LONGEST_HOLD: u16 = 24 * 60;

/// Whether a slot that is held until minute `hold` is held at `ms`.
pub(crate) fn held(hold: u16, ms: u64) -> bool {
    let ahead = (u32::from(hold) + 65_535 - u32::from(minute(ms))) % 65_535;
    hold != 0 && ahead != 0 && ahead <= u32::from(LONGEST_HOLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_end() {
        let day = 24 * 60 * 60 * 1000;
        for now in [0, day, 45 * day, 45 * day + day / 2, 20_000 * day] {
            assert!(!held(0, now));
            assert!(held(minute(now + 60_000), now));
            assert!(held(minute(now + day), now));
            assert!(!held(minute(now), now + 60_000));
            assert!(!held(minute(now), now + 10 * day));
        }
    }
}
