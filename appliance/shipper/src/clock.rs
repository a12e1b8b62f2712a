//! What the shipper knows about time, replaceable by tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::journal::Id128;

/// The clocks of this machine.
pub trait Clock {
    /// Nanoseconds since 1970 by the wall clock.
    fn now(&self) -> i64;
    /// Time by the monotonic clock of the boot, the one that journald writes down.
    fn monotonic(&self) -> Duration;
    /// Whether the wall clock has been set by a server since the boot.
    fn synchronized(&self) -> bool;
    /// The running boot.
    fn boot(&self) -> Id128;
}

/// The real clocks.
#[derive(Clone, Debug)]
pub struct SystemClock {
    boot: Id128,
}

impl SystemClock {
    /// The clocks of the running boot.
    pub fn new() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            boot: Id128::parse(&boot).unwrap_or_default(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn synchronized(&self) -> bool {
        // systemd-timesyncd's mark; other daemons tell the kernel (adjtimex(2)).
        std::path::Path::new("/run/systemd/timesync/synchronized").exists()
            || timex().is_some_and(|timex| timex.status & libc::STA_UNSYNC == 0)
    }

    fn boot(&self) -> Id128 {
        self.boot
    }
}

/// The kernel's state of the clock, read by adjtimex(2) with nothing to adjust.
pub(crate) fn timex() -> Option<libc::timex> {
    // SAFETY: all zeros is a valid timex, and modes = 0 adjusts nothing.
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex) >= 0).then_some(timex)
    }
}
