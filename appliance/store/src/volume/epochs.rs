//! Epochs: when an object was last used, in two bytes.
//!
//! An epoch begins with every 64th of the capacity that is written, and every hour. The index keeps
//! the number of the epoch in which an object was last used; the list here says where in the log and
//! at what time each began.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::{Volume, lock};
use crate::format::checkpoint::Item;

/// Epochs that are remembered: more than a turn and a quarter, and some weeks of hours.
const REMEMBERED: usize = 4096;
const HOUR: u32 = 60 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    number: u16,
    /// When it began, s since 1970.
    time: u32,
    /// Bytes written before.
    position: u64,
}

/// The epochs, oldest first.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    list: VecDeque<Epoch>,
}

impl Epochs {
    pub(super) fn push(&mut self, number: u16, time: u32, position: u64) {
        self.list.push_back(Epoch {
            number,
            time,
            position,
        });
        if self.list.len() > REMEMBERED {
            self.list.pop_front();
        }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Item> {
        let item = |epoch: &Epoch| Item::Epoch(epoch.number, epoch.time, epoch.position);
        self.list.iter().map(item)
    }

    /// Whether an epoch began at or after the first one that `since` holds for.
    fn is_since(&self, number: u16, since: impl Fn(&Epoch) -> bool) -> bool {
        let Some(newest) = self.list.back() else {
            return false;
        };
        let first = self.list.partition_point(|epoch| !since(epoch));
        let Some(first) = self.list.get(first) else {
            return number == newest.number;
        };
        // Numbers wrap: compare how far behind the newest they are.
        newest.number.wrapping_sub(number) <= newest.number.wrapping_sub(first.number)
    }
}

impl Volume {
    fn seconds(&self) -> u32 {
        u32::try_from(self.clock.now() / 1000).unwrap_or(u32::MAX)
    }

    /// Notes that so many bytes were written.
    pub(crate) fn advance(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let step = (self.capacity() / 64).max(1);
        let now = self.seconds();
        let mut epochs = lock(&self.epochs);
        let next = match epochs.list.back() {
            None => 0,
            Some(last)
                if written >= last.position + step || now >= last.time.saturating_add(HOUR) =>
            {
                last.number.wrapping_add(1)
            }
            Some(_) => return,
        };
        // A clock that was set back makes an epoch longer, not older.
        let now = epochs.list.back().map_or(now, |last| last.time.max(now));
        epochs.push(next, now, written);
        self.epoch.store(next, Ordering::Relaxed);
    }

    /// Whether something last used in this epoch was used within the last quarter turn of the log.
    pub(super) fn is_hot(&self, last: u16) -> bool {
        let capacity = self.capacity();
        let written = self.written.load(Ordering::Relaxed);
        let from = written.saturating_sub(capacity / 4);
        lock(&self.epochs).is_since(last, |epoch| epoch.position >= from)
    }

    /// Whether something last used in this epoch was not used for as long as entries are kept.
    pub(crate) fn is_expired(&self, last: u16) -> bool {
        let kept = self.settings.entry_retention.as_secs();
        let since = u64::from(self.seconds()).saturating_sub(kept);
        if since == 0 {
            return false;
        }
        let epochs = lock(&self.epochs);
        // An epoch lasts until the next one begins: the last one that began before counts as well.
        let recent = epochs
            .list
            .partition_point(|epoch| u64::from(epoch.time) < since);
        let Some(first) = epochs.list.get(recent.saturating_sub(1)) else {
            return false;
        };
        let Some(newest) = epochs.list.back() else {
            return false;
        };
        newest.number.wrapping_sub(last) > newest.number.wrapping_sub(first.number)
    }
}
