//! What systemd is told: ready, status, stopping, and that the service is alive.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd; without systemd nothing happens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd the state of the service: {error}");
    }
}

/// The listeners are served.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The service reads anew what may have changed; [`ready`] ends that.
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// How it goes, in words.
pub(crate) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The service is about to stop.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Tells systemd that the service is alive, twice as often as it asks for; never returns. Run
/// among the requests: when those hang, so does this.
pub(crate) async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
