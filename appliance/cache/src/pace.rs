//! How fast a request body has to come: a deadline for every 256 KiB.

use std::time::Duration;

use tokio::time::Instant;

use crate::Timeouts;

/// Bytes that get a deadline of their own.
const STEP: u64 = 256 * 1024;
/// Slowest rate for large bodies, in bytes a second.
const RATE: u64 = 50 * 1024;

/// The deadlines of one body.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Duration,
    received: u64,
    until: u64,
    deadline: Instant,
}

impl Pace {
    /// Of a body that begins now, with its declared length.
    pub(crate) fn new(timeouts: &Timeouts, length: Option<u64>) -> Self {
        let clamp = |(least, most): (Duration, Duration)| match length {
            Some(length) => Duration::from_secs(length / RATE).clamp(least, most),
            None => most,
        };
        Self {
            next: clamp(timeouts.body_next),
            received: 0,
            until: STEP,
            deadline: Instant::now() + clamp(timeouts.body_first),
        }
    }

    /// When the next bytes must be there.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Bytes came.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if self.received >= self.until {
            self.until = self.received + STEP;
            self.deadline = Instant::now() + self.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_step_has_its_deadline() {
        let start = Instant::now();
        let after = |pace: &Pace| (pace.deadline() - start).as_secs();
        let timeouts = Timeouts::default();
        assert_eq!(after(&Pace::new(&timeouts, Some(1))), 60);
        assert_eq!(after(&Pace::new(&timeouts, None)), 600);
        assert_eq!(after(&Pace::new(&timeouts, Some(25 << 20))), 512);
        let mut pace = Pace::new(&timeouts, Some(1 << 20));
        tokio::time::advance(Duration::from_secs(50)).await;
        pace.came(STEP as usize - 1);
        assert_eq!(after(&pace), 60);
        pace.came(1);
        assert_eq!(after(&pace), 50 + 20);
        pace.came(2 * STEP as usize);
        assert_eq!(after(&pace), 50 + 20);
    }
}
