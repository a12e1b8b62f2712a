//! How long to wait between attempts.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// Waits that double, each a random part of the whole ("full jitter").
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait; never shorter than a quarter of a second.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        whole.mul_f64(random()).max(Duration::from_millis(250))
    }

    /// It worked: begin anew.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// An interval, a tenth longer or shorter, so that a fleet does not ask all at once.
pub(crate) fn spread(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random())
}

/// From 0 up to 1. Without randomness the middle does too: this is no secret.
fn random() -> f64 {
    let mut bytes = [0x80, 0, 0, 0];
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::new();
        let mut longest = FIRST;
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait <= longest.max(Duration::from_millis(250)), "{wait:?}");
            longest = (longest * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
        let hour = spread(Duration::from_secs(3600)).as_secs();
        assert!((3240..=3960).contains(&hour), "{hour}");
    }
}
