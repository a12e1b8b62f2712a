//! Ctrl-C and SIGTERM as a question that loops ask, so that machines end cleanly.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(signal: libc::c_int) {
    if REQUESTED.swap(true, Ordering::SeqCst) {
        // Second time: the user means it. Machines are tied to this process and go with it.
        // SAFETY: _exit is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + signal) }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP only set what [`requested`] tells; the second one ends
/// the process at once. Waiting calls of this crate return [`crate::Error::Interrupted`].
pub fn install() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only touches an atomic and calls _exit, both async-signal-safe.
        unsafe {
            libc::signal(
                signal,
                on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t,
            );
        }
    }
}

/// Whether the user has asked to end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
