//! What a connection does, to end the ones that hang.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::Timeouts;

/// What one connection does. Its deadline moves on with every request and every piece of a body.
#[derive(Debug)]
pub(crate) struct Activity {
    head: Duration,
    idle: Duration,
    stall: Duration,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    /// Requests that are answered at the moment.
    running: usize,
    /// When something moved last.
    last: Instant,
    /// The head of a request is being waited for: since the connection was made or its first byte
    /// came.
    head: bool,
}

impl Activity {
    /// Of a connection that was just made.
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        Self {
            head: timeouts.head,
            idle: timeouts.idle,
            stall: timeouts.stall,
            now: Mutex::new(Now {
                running: 0,
                last: Instant::now(),
                head: true,
            }),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        // Plain numbers: nothing can be left half-changed.
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Bytes came over a connection that has one request at a time.
    pub(crate) fn bytes(&self) {
        self.change(|now| {
            if now.running == 0 && !now.head {
                now.head = true;
                now.last = Instant::now();
            }
        });
    }

    /// A request came whole (but for its body).
    pub(crate) fn began(&self) {
        self.change(|now| {
            now.running += 1;
            now.head = false;
            now.last = Instant::now();
        });
    }

    /// A piece of a body was taken by the client or came from it.
    pub(crate) fn moved(&self) {
        self.change(|now| now.last = Instant::now());
    }

    /// A request was answered.
    pub(crate) fn ended(&self) {
        self.change(|now| {
            now.running -= 1;
            now.last = Instant::now();
        });
    }

    /// Whether no request is being answered.
    pub(crate) fn is_idle(&self) -> bool {
        let mut idle = false;
        self.change(|now| idle = now.running == 0);
        idle
    }

    /// How often to look: a deadline can come nearer, as when the head of a request begins on an idle
    /// connection, and nobody is told.
    pub(crate) fn step(&self) -> Duration {
        self.head.min(self.idle).min(self.stall) / 4
    }

    /// When the connection is to be ended if nothing happens until then.
    pub(crate) fn deadline(&self) -> Instant {
        let mut deadline = Instant::now();
        self.change(|now| {
            let allowed = match now {
                Now { running: 1.., .. } => self.stall,
                Now { head: true, .. } => self.head,
                _ => self.idle,
            };
            deadline = now.last + allowed;
        });
        deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadlines_follow_what_happens() {
        let start = Instant::now();
        let activity = Activity::new(&Timeouts::default());
        let after = || (activity.deadline() - start).as_secs();
        let wait = || tokio::time::advance(Duration::from_secs(5));
        assert_eq!(after(), 30);
        wait().await;
        // A drop of bytes does not move the deadline of the head.
        activity.bytes();
        assert_eq!(after(), 30);
        activity.began();
        assert_eq!(after(), 305);
        wait().await;
        activity.bytes();
        assert_eq!(after(), 305);
        activity.moved();
        assert_eq!(after(), 310);
        activity.began();
        activity.ended();
        wait().await;
        activity.ended();
        assert_eq!(after(), 15 + 120);
        wait().await;
        activity.bytes();
        assert_eq!(after(), 20 + 30);
    }
}
