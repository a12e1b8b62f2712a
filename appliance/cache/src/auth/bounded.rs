//! A map that cannot grow without end: what was put last stays.

use std::collections::HashMap;

use tokio::time::Instant;

/// A map from hashes of tokens. When it is full, the oldest tenth goes.
#[derive(Debug)]
pub(super) struct Bounded<V> {
    most: usize,
    entries: HashMap<[u8; 32], (Instant, V)>,
}

impl<V> Bounded<V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            entries: HashMap::new(),
        }
    }

    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<&V> {
        self.entries.get(digest).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, digest: &[u8; 32]) -> Option<&mut V> {
        self.entries.get_mut(digest).map(|(_, value)| value)
    }

    pub(super) fn put(&mut self, digest: [u8; 32], value: V) {
        if self.entries.len() >= self.most && !self.entries.contains_key(&digest) {
            let mut times: Vec<_> = self.entries.values().map(|(time, _)| *time).collect();
            let tenth = times.len() / 10;
            let (_, oldest, _) = times.select_nth_unstable(tenth);
            let oldest = *oldest;
            let mut left = tenth + 1;
            self.entries.retain(|_, (time, _)| {
                let goes = left > 0 && *time <= oldest;
                left -= usize::from(goes);
                !goes
            });
        }
        self.entries.insert(digest, (Instant::now(), value));
    }

    pub(super) fn remove(&mut self, digest: &[u8; 32]) {
        self.entries.remove(digest);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_go_and_it_never_grows_beyond() {
        let digest = |number: u8| [number; 32];
        let mut bounded = Bounded::new(20);
        for number in 0..20 {
            bounded.put(digest(number), number);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        bounded.put(digest(5), 55);
        assert_eq!(bounded.len(), 20);
        bounded.put(digest(20), 20);
        assert!(bounded.len() <= 20);
        assert_eq!(bounded.get(&digest(0)), None);
        assert_eq!(bounded.get(&digest(5)), Some(&55));
        assert_eq!(bounded.get(&digest(20)), Some(&20));
        for number in 21..=255 {
            // All at once: none is older than another.
            bounded.put(digest(number), number);
            assert!(bounded.len() <= 20);
        }
    }
}
