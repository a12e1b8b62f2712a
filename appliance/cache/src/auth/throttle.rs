//! A bound on how many tokens that fail a source may try: who guesses must not make us hammer the
//! server that knows.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most sources that are remembered; when there are more, all are forgiven.
const SOURCES: usize = 10_000;

/// Who tried what.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Most different tokens of a source that may fail within the window.
    most: usize,
    window: Duration,
    sources: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    tokens: HashSet<[u8; 32]>,
}

/// An IPv6 source has a network of its own to choose addresses from.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

impl Throttle {
    pub(super) fn new(most: usize, window: Duration) -> Self {
        Self {
            most,
            window,
            sources: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Failures>> {
        // Numbers and sets, whole after every statement.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token of this source failed.
    pub(super) fn failed(&self, peer: IpAddr, digest: [u8; 32]) {
        let now = Instant::now();
        let mut sources = self.lock();
        if sources.len() >= SOURCES {
            sources.retain(|_, failures| now - failures.since < self.window);
            if sources.len() >= SOURCES {
                sources.clear();
            }
        }
        let failures = sources.entry(source(peer)).or_insert_with(|| Failures {
            since: now,
            tokens: HashSet::new(),
        });
        if now - failures.since >= self.window {
            failures.since = now;
            failures.tokens.clear();
        }
        if failures.tokens.len() <= self.most {
            failures.tokens.insert(digest);
        }
    }

    /// How long a source that tried too much has to wait.
    pub(super) fn blocked(&self, peer: IpAddr) -> Option<Duration> {
        let sources = self.lock();
        let failures = sources.get(&source(peer))?;
        let left = self.window.checked_sub(failures.since.elapsed())?;
        (failures.tokens.len() >= self.most && !left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn different_tokens_count_and_time_forgives() {
        let throttle = Throttle::new(3, Duration::from_secs(60));
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            // A client that tries the same expired token again guesses nothing.
            throttle.failed(peer, [0; 32]);
        }
        throttle.failed(peer, [1; 32]);
        assert_eq!(throttle.blocked(peer), None);
        tokio::time::advance(Duration::from_secs(20)).await;
        throttle.failed(peer, [2; 32]);
        assert_eq!(throttle.blocked(peer), Some(Duration::from_secs(40)));
        assert_eq!(throttle.blocked("192.0.2.2".parse().unwrap()), None);
        // The same source, spoken to over a socket for both versions.
        assert!(
            throttle
                .blocked("::ffff:192.0.2.1".parse().unwrap())
                .is_some()
        );
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(throttle.blocked(peer), None);
        throttle.failed(peer, [3; 32]);
        assert_eq!(throttle.blocked(peer), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_source_and_sources_are_bounded() {
        let throttle = Throttle::new(1, Duration::from_secs(60));
        throttle.failed("2001:db8::1".parse().unwrap(), [1; 32]);
        assert!(throttle.blocked("2001:db8::2".parse().unwrap()).is_some());
        assert!(
            throttle
                .blocked("2001:db8:0:1::1".parse().unwrap())
                .is_none()
        );
        for number in 0..2 * SOURCES as u32 {
            throttle.failed(IpAddr::V4(number.into()), [1; 32]);
        }
        assert!(throttle.lock().len() <= SOURCES);
    }
}
