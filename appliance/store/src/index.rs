//! The index: from the tag of a key to the position of its record, in memory.
//!
//! 24 bytes an object and one of the hash table; the table is at least 7/16 full after it grew, so
//! an object costs at most (24 + 1) × 16 / 7 = 57 bytes. 256 shards, so that growing stops nobody for
//! long and threads rarely meet.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::format::{ALIGN, Fields};

/// Where a record is: positions order all records of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// In 16 bytes.
    pub(crate) offset: u32,
}

impl Place {
    pub(crate) fn byte(self) -> u64 {
        u64::from(self.offset) * ALIGN
    }
}

/// What the index knows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) tag: u64,
    pub(crate) place: Place,
    /// Length of the record in 16 bytes (24 bits), and its flags.
    size_flags: u32,
    /// Epoch of the last use.
    pub(crate) last: u16,
    /// Minute until which it is held (wrapping), 0: not at all.
    pub(crate) hold: u16,
}

impl Slot {
    /// Length of a slot in a checkpoint in bytes.
    pub(crate) const LENGTH: usize = 24;

    pub(crate) fn new(tag: u64, place: Place, size: u32, flags: u8, last: u16) -> Self {
        debug_assert!(size < 1 << 24);
        Self {
            tag,
            place,
            size_flags: size << 8 | u32::from(flags),
            last,
            hold: 0,
        }
    }

    pub(crate) fn flags(&self) -> u8 {
        self.size_flags as u8
    }

    pub(crate) fn set_flag(&mut self, flag: u8, on: bool) {
        if on {
            self.size_flags |= u32::from(flag);
        } else {
            self.size_flags &= !u32::from(flag);
        }
    }

    /// Length of the record in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.size_flags >> 8) * ALIGN
    }

    /// Length of the record in 16 bytes.
    pub(crate) fn size(&self) -> u32 {
        self.size_flags >> 8
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.tag.to_le_bytes());
        to.extend_from_slice(&self.place.segment.to_le_bytes());
        to.extend_from_slice(&self.place.offset.to_le_bytes());
        to.extend_from_slice(&self.size_flags.to_le_bytes());
        to.extend_from_slice(&self.last.to_le_bytes());
        to.extend_from_slice(&self.hold.to_le_bytes());
    }

    pub(crate) fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            tag: fields.u64()?,
            place: Place {
                segment: fields.u32()?,
                offset: fields.u32()?,
            },
            size_flags: fields.u32()?,
            last: fields.u16()?,
            hold: fields.u16()?,
        })
    }
}

/// Number of shards.
pub(crate) const SHARDS: usize = 256;

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<Mutex<HashTable<Slot>>>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashTable::new())).collect(),
        }
    }

    fn shard(&self, tag: u64) -> MutexGuard<'_, HashTable<Slot>> {
        // The table uses the lowest bits and the highest seven.
        self.lock((tag >> 40) as usize % SHARDS)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, HashTable<Slot>> {
        // Nothing that is done under the lock can panic half-way.
        let lock = self.shards[shard].lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for this many objects.
    pub(crate) fn reserve(&self, count: usize) {
        for shard in 0..SHARDS {
            let each = count / SHARDS + count / SHARDS / 32;
            self.lock(shard).reserve(each, |slot| slot.tag);
        }
    }

    pub(crate) fn get(&self, tag: u64) -> Option<Slot> {
        self.shard(tag).find(tag, |slot| slot.tag == tag).copied()
    }

    /// Looks a tag up and marks it as used in `epoch`; the slot as it was before.
    pub(crate) fn touch(&self, tag: u64, epoch: u16) -> Option<Slot> {
        self.touch_if(tag, epoch, |_| true)
    }

    /// The same, if `condition` holds for it.
    pub(crate) fn touch_if(
        &self,
        tag: u64,
        epoch: u16,
        condition: impl FnOnce(&Slot) -> bool,
    ) -> Option<Slot> {
        let mut shard = self.shard(tag);
        let slot = shard.find_mut(tag, |slot| slot.tag == tag)?;
        let before = *slot;
        if !condition(&before) {
            return None;
        }
        // A line of memory that is not written to stays with all processors.
        if before.last != epoch {
            slot.last = epoch;
        }
        Some(before)
    }

    /// Changes what is there.
    pub(crate) fn change(&self, tag: u64, change: impl FnOnce(&mut Slot)) -> bool {
        let mut shard = self.shard(tag);
        let slot = shard.find_mut(tag, |slot| slot.tag == tag);
        slot.map(change).is_some()
    }

    /// Puts a slot in the place of what was there.
    pub(crate) fn put(&self, slot: Slot) -> Option<Slot> {
        let mut shard = self.shard(slot.tag);
        match shard.entry(slot.tag, |other| other.tag == slot.tag, |slot| slot.tag) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), slot)),
            Entry::Vacant(entry) => {
                entry.insert(slot);
                None
            }
        }
    }

    /// Puts a slot unless one of a higher position is there: what recovery does, in any order.
    /// Whether it was put, and what was there.
    pub(crate) fn put_newer(&self, slot: Slot) -> (bool, Option<Slot>) {
        let mut shard = self.shard(slot.tag);
        match shard.entry(slot.tag, |other| other.tag == slot.tag, |slot| slot.tag) {
            Entry::Occupied(mut entry) if entry.get().place < slot.place => {
                (true, Some(std::mem::replace(entry.get_mut(), slot)))
            }
            Entry::Occupied(entry) => (false, Some(*entry.get())),
            Entry::Vacant(entry) => {
                entry.insert(slot);
                (true, None)
            }
        }
    }

    /// Takes a slot out if `condition` holds for it.
    pub(crate) fn remove_if(
        &self,
        tag: u64,
        condition: impl FnOnce(&Slot) -> bool,
    ) -> Option<Slot> {
        let mut shard = self.shard(tag);
        let entry = shard.find_entry(tag, |slot| slot.tag == tag).ok()?;
        condition(entry.get()).then(|| entry.remove().0)
    }

    /// Calls `each` for all slots of a shard.
    pub(crate) fn for_each(&self, shard: usize, mut each: impl FnMut(&Slot)) {
        for slot in self.lock(shard).iter() {
            each(slot);
        }
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        (0..SHARDS).map(|shard| self.lock(shard).len()).sum()
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        (0..SHARDS)
            .map(|shard| self.lock(shard).allocation_size())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_costs_at_most_64_bytes() {
        let index = Index::new();
        let mut worst = 0.0_f64;
        for number in 0..400_000_u64 {
            let tag = crate::format::mix(number);
            index.put(Slot::new(tag, Place::default(), 1, 0, 0));
            if number > 10_000 && number % 1000 == 0 {
                worst = worst.max(index.bytes() as f64 / number as f64);
            }
        }
        assert_eq!(index.len(), 400_000);
        assert!(worst <= 64.0, "{worst} bytes an object");
    }

    #[test]
    fn the_higher_position_wins() {
        let index = Index::new();
        let at = |segment, offset| Slot::new(7, Place { segment, offset }, 1, 0, 0);
        assert_eq!(index.put_newer(at(2, 5)), (true, None));
        assert_eq!(index.put_newer(at(1, 9)), (false, Some(at(2, 5))));
        assert_eq!(index.put_newer(at(2, 6)), (true, Some(at(2, 5))));
        assert_eq!(index.remove_if(7, |slot| slot.place.offset == 5), None);
        assert!(index.remove_if(7, |_| true).is_some());
        assert_eq!(index.get(7), None);
    }
}
