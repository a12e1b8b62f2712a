//! Small records that were read twice lately, kept in memory: a look-up, a read from the page cache and
//! a check less for each further read.
//!
//! Records are known by their place, where nothing else ever comes to be, and only the index leads to
//! a place: what was removed, replaced or evicted is not found here any more, and goes as others come.
//! What comes once only takes nothing from what comes often: a record is kept from its second read on, if
//! few others were read between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;
use crate::format::mix;
use crate::format::record::Head;
use crate::index::Place;

/// Longest body that is kept.
const LONGEST: usize = 64 * 1024;
/// Threads rarely meet.
const SHARDS: usize = 16;
/// Places whose last read is remembered.
const SEEN: usize = 4096;
/// What an entry takes beside its body: its head, and its part of the table.
const OVERHEAD: u64 = 512;

#[derive(Debug)]
struct Entry {
    place: Place,
    head: Arc<Head>,
    body: Bytes,
    /// Read since the hand came by.
    used: bool,
}

impl Entry {
    fn cost(&self) -> u64 {
        self.body.len() as u64 + OVERHEAD
    }
}

/// Entries in a ring with a hand (CLOCK).
#[derive(Debug, Default)]
struct Shard {
    at: HashMap<Place, usize>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: u64,
}

/// The records in memory.
#[derive(Debug)]
pub(crate) struct Hot {
    /// Bytes of one shard.
    limit: u64,
    shards: Vec<Mutex<Shard>>,
    seen: Vec<AtomicU64>,
}

impl Hot {
    /// Keeps at most so many bytes; 0: none.
    pub(crate) fn new(bytes: u64) -> Self {
        let (shards, seen) = if bytes == 0 { (0, 0) } else { (SHARDS, SEEN) };
        Self {
            limit: bytes / SHARDS as u64,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            seen: (0..seen).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn mixed(place: Place) -> u64 {
        mix(u64::from(place.segment) << 32 | u64::from(place.offset))
    }

    /// The record at a place.
    pub(crate) fn get(&self, place: Place) -> Option<(Arc<Head>, Bytes)> {
        let shard = self.shards.get(Self::mixed(place) as usize % SHARDS)?;
        let mut shard = lock(shard);
        let at = *shard.at.get(&place)?;
        let entry = &mut shard.entries[at];
        entry.used = true;
        Some((Arc::clone(&entry.head), entry.body.clone()))
    }

    /// Whether a record is kept, or would be if it were offered now; notes that it is read.
    pub(crate) fn wants(&self, place: Place) -> bool {
        let mixed = Self::mixed(place);
        let Some(shard) = self.shards.get(mixed as usize % SHARDS) else {
            return false;
        };
        let seen = &self.seen[(mixed >> 32) as usize % SEEN];
        lock(shard).at.contains_key(&place) || seen.swap(mixed, Ordering::Relaxed) == mixed
    }

    /// Takes a record that was read and checked, if it is worth it.
    pub(crate) fn offer(&self, place: Place, head: &Arc<Head>, body: &Bytes) {
        let mixed = Self::mixed(place);
        let Some(shard) = self.shards.get(mixed as usize % SHARDS) else {
            return;
        };
        let seen = &self.seen[(mixed >> 32) as usize % SEEN];
        if body.len() > LONGEST || seen.swap(mixed, Ordering::Relaxed) != mixed {
            return;
        }
        let entry = Entry {
            place,
            head: Arc::clone(head),
            body: body.clone(),
            used: false,
        };
        lock(shard).put(entry, self.limit);
    }

    /// Bytes in memory.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).bytes).sum()
    }
}

impl Shard {
    fn put(&mut self, entry: Entry, limit: u64) {
        if self.at.contains_key(&entry.place) || entry.cost() > limit {
            return;
        }
        while self.bytes + entry.cost() > limit {
            self.hand %= self.entries.len();
            if std::mem::take(&mut self.entries[self.hand].used) {
                self.hand += 1;
                continue;
            }
            // The last one takes its turn at the hand.
            let gone = self.entries.swap_remove(self.hand);
            self.bytes -= gone.cost();
            self.at.remove(&gone.place);
            if let Some(moved) = self.entries.get(self.hand) {
                self.at.insert(moved.place, self.hand);
            }
        }
        self.bytes += entry.cost();
        self.at.insert(entry.place, self.entries.len());
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::Kind;
    use crate::key::Key;

    fn place(number: u32) -> Place {
        Place {
            segment: 1,
            offset: number,
        }
    }

    fn read(hot: &Hot, number: u32, length: usize) -> bool {
        if let Some((head, body)) = hot.get(place(number)) {
            assert_eq!((head.tag, body.len()), (u64::from(number), length));
            return true;
        }
        let head = Head::mark(Kind::Object, &Key::default(), number.into(), 0, 0);
        hot.offer(
            place(number),
            &Arc::new(head),
            &Bytes::from(vec![0; length]),
        );
        false
    }

    #[test]
    fn what_is_read_again_is_kept() {
        let hot = Hot::new(1 << 20);
        assert!(!read(&hot, 1, 10));
        assert!(!read(&hot, 1, 10));
        assert!(read(&hot, 1, 10));
        assert!(!read(&hot, 2, LONGEST + 1));
        assert!(!read(&hot, 2, LONGEST + 1));
        assert!(!read(&hot, 2, LONGEST + 1));
        let none = Hot::new(0);
        assert!((0..4).all(|_| !read(&none, 1, 10)));
    }

    #[test]
    fn it_is_bounded_and_what_comes_often_stays() {
        let hot = Hot::new(1 << 20);
        for number in 0..50_000 {
            let (once, often) = (1000 + number, number % 4);
            read(&hot, once, 4096);
            read(&hot, once, 4096);
            let there = read(&hot, often, 4096);
            // Its first reads, then some others between two.
            assert!(there || number < 8, "{often} after {number} others");
            assert!(hot.bytes() <= 1 << 20);
        }
    }

    #[test]
    fn a_walk_over_everything_takes_no_place() {
        let hot = Hot::new(1 << 20);
        for _ in 0..3 {
            for number in 0..100_000 {
                read(&hot, number, 4096);
            }
        }
        assert!(hot.bytes() < 1 << 16, "{}", hot.bytes());
    }
}
