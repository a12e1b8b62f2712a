//! The hardware watchdog: armed here, so that a hang of stage1 or of the early system reboots the
//! machine; systemd takes it over (`RuntimeWatchdogSec=`).

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use crate::console::Log;

const DEVICE: &str = "/dev/watchdog0";
/// Longer than anything that stage1 waits for without pinging, in seconds.
const SECONDS: libc::c_int = 180;
/// `_IOWR('W', 6, int)` of linux/watchdog.h.
const WDIOC_SETTIMEOUT: libc::Ioctl = 0xc004_5706;

/// A watchdog that barks unless it is pinged; none on machines without one.
pub(crate) struct Watchdog {
    device: Option<File>,
}

impl Watchdog {
    /// Opens the first watchdog, which arms it.
    pub(crate) fn arm(log: &mut Log) -> Self {
        let device = std::fs::OpenOptions::new().write(true).open(DEVICE).ok();
        if let Some(device) = &device {
            let mut seconds = SECONDS;
            // SAFETY: the argument is an int that outlives the call.
            let set =
                unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut seconds) };
            if set == 0 {
                log.say(&format!("watchdog armed, {seconds} s"));
            } else {
                log.say("watchdog armed, it keeps its own time-out");
            }
        }
        Self { device }
    }

    /// Shows that stage1 is alive.
    pub(crate) fn ping(&mut self) {
        if let Some(device) = &mut self.device {
            let _ = device.write_all(b"\0");
        }
    }

    /// Leaves it armed for systemd: closed without the magic character it keeps counting.
    pub(crate) fn hand_over(mut self, log: &mut Log) {
        if self.device.is_some() {
            self.ping();
            log.say("the watchdog stays armed until systemd takes it over");
        }
    }
}
