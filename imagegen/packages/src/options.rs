//! How downloads are done.

use std::sync::Arc;
use std::time::Duration;

use crate::http::{Client, Timeouts};
use crate::proxy::Proxies;

/// How to download.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at once.
    pub connections: usize,
    /// Attempts without progress before a source counts as unreachable.
    pub attempts: u32,
    /// Pause before the second attempt; doubles with each, up to 5 s.
    pub pause: Duration,
    /// Time-outs of each step.
    pub timeouts: Timeouts,
    /// Proxies; `None`: discovered when the first connection is made.
    pub proxies: Option<Proxies>,
    /// Whether files of the cache are hashed before they are used; otherwise name and size are
    /// proof enough.
    pub rehash: bool,
    /// Whether an index past its Valid-Until is an error instead of a warning.
    pub strict_dates: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 4,
            attempts: 5,
            pause: Duration::from_millis(250),
            timeouts: Timeouts::default(),
            proxies: None,
            rehash: false,
            strict_dates: false,
        }
    }
}

impl Options {
    pub(crate) fn client(&self) -> Arc<Client> {
        let proxies = self.proxies.clone().unwrap_or_else(Proxies::discover);
        Arc::new(Client::new(self.timeouts, proxies))
    }

    /// Pause after this many failures in a row.
    pub(crate) fn pause_after(&self, failures: u32) -> Duration {
        self.pause
            .saturating_mul(1 << failures.saturating_sub(1).min(16))
            .min(Duration::from_secs(5))
    }
}
