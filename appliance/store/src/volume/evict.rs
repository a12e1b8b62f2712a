//! Eviction: the oldest segment goes, what is in use is written again first (`FORMAT.md` 4).

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::{Done, Work};
use super::read::Body;
use super::{Keeping, Large, Segment, Volume, lock};
use crate::Error;
use crate::clock::held;
use crate::disk::Flush;
use crate::format::record::{ENTRY, Kind, LARGE, PINNED};
use crate::format::segment::Entry;
use crate::index::{Place, SHARDS, Slot};

/// Bytes of records that are copied at a time.
const BATCH: u64 = 4 << 20;

impl Volume {
    /// Evicts the oldest segment. `emergency`: nothing is copied. `false`: there is none to evict.
    ///
    /// # Errors
    ///
    /// The disk failed; what was not gone by then is still there.
    pub(super) fn evict_oldest(
        &self,
        keeping: &mut Keeping,
        emergency: bool,
    ) -> Result<bool, Error> {
        // What recovery did not find yet would go, in use or not.
        if self.is_recovering() {
            return Ok(false);
        }
        let Some(segment) = self.all_segments().first().cloned() else {
            return Ok(false);
        };
        let id = segment.header.id;
        let closing = {
            let mut log = lock(&self.log);
            match &log.open {
                Some(open) if open.segment.header.id == id => {
                    if open.entries.is_empty() {
                        return Ok(false);
                    }
                    self.roll(&mut log);
                    true
                }
                _ => log.closing.iter().any(|open| open.segment.header.id == id),
            }
        };
        if closing {
            // A failure closes the segment too, and is told by the status.
            let _ = self.sync(Flush::Records);
        }
        let entries = match self.entries(&segment) {
            Ok(entries) => entries,
            Err(error) => {
                self.counters.read_errors.add(1);
                log::error!(
                    "{}: evicted unread: {error}",
                    self.path(&segment.path).display()
                );
                Arc::new(self.entries_by_index(id))
            }
        };
        if !emergency {
            self.copy_survivors(keeping, &segment, &entries)?;
        }
        let larges = self.drop_entries(id, &entries, emergency);
        let path = self.path(&segment.path);
        let unlinked = match self.disk.unlink(&segment.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            unlinked => unlinked,
        };
        self.note(unlinked.map_err(Error::io(&path, "remove")))?;
        self.remove_larges(&larges)?;
        let bytes = segment.bytes.load(Ordering::Relaxed);
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        *lock(&segment.pending) = Some(Arc::clone(&self.pending));
        self.drop_segment(id);
        // Before the next one may go: no younger segment may be gone when an older one is back.
        let synced = self.disk.sync_folder("segments", Flush::Gone);
        self.note(synced.map_err(Error::io(&path, "sync the folder of")))?;
        self.counters.evicted_segments.add(1);
        Ok(true)
    }

    /// Writes again what is pinned, held or in use.
    fn copy_survivors(
        &self,
        keeping: &mut Keeping,
        segment: &Arc<Segment>,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let id = segment.header.id;
        let now = self.clock.now();
        // An emergency brake, not a policy: recency sets the share of what is worth keeping. Files of
        // their own are not copied. What a cold segment leaves of it a hot one after it may use.
        let brake = self.segment_bytes / 4 * 3;
        keeping.allowance = (keeping.allowance + brake).min(2 * self.segment_bytes);
        let (mut batch, mut batched) = (Vec::new(), 0);
        for entry in entries {
            let Some(slot) = self.live(id, entry) else {
                continue;
            };
            let pinned = slot.flags() & PINNED != 0 && self.pin_holds(keeping);
            let held = held(slot.hold, now);
            let hot = self.is_hot(slot.last) && slot.bytes() <= keeping.allowance;
            let expired = slot.flags() & ENTRY != 0 && self.is_expired(slot.last);
            if !pinned && (expired || !(held || hot)) {
                continue;
            }
            let Ok(record) = self.record_in(segment, slot.place, slot.bytes(), true) else {
                self.drop_damaged(&slot);
                continue;
            };
            let body = match record.body {
                Body::Here(body) => body,
                Body::There(..) if slot.flags() & LARGE != 0 => bytes::Bytes::new(),
                Body::There(source, offset) => {
                    let whole = 0..record.head.length;
                    match super::read::read_part(&record.head, &source, offset, whole, true) {
                        Ok(body) => body,
                        Err(_) => {
                            self.drop_damaged(&slot);
                            continue;
                        }
                    }
                }
            };
            if !pinned && !held {
                keeping.allowance -= slot.bytes().min(keeping.allowance);
            }
            batched += slot.bytes();
            batch.push(Work::Copy {
                from: slot.place,
                head: Box::new(Arc::unwrap_or_clone(record.head)),
                body,
            });
            if batched >= BATCH {
                self.copy(&batch)?;
                (batched, batch) = (0, Vec::new());
            }
        }
        self.copy(&batch)?;
        if lock(&self.log).open.is_some() {
            self.sync(Flush::Survivors)?;
        }
        Ok(())
    }

    fn copy(&self, batch: &[Work]) -> Result<(), Error> {
        for (outcome, work) in self.append(batch).into_iter().zip(batch) {
            match outcome {
                Ok(Done::Written) => {
                    self.counters.survivors.add(1);
                    self.counters.survivor_bytes.add(work.bytes());
                }
                Ok(_) => {}
                // Without room for copies there are none: eviction always advances.
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The slot of an entry, if the index still points at it.
    pub(super) fn live(&self, segment: u32, entry: &Entry) -> Option<Slot> {
        let place = Place {
            segment,
            offset: entry.offset,
        };
        let slot = self.index.get(entry.tag)?;
        (entry.kind == Kind::Object && slot.place == place).then_some(slot)
    }

    /// Whether pins still count: beyond their share of the capacity they give way.
    fn pin_holds(&self, keeping: &mut Keeping) -> bool {
        let share = u128::from(self.capacity()) * u128::from(self.settings.pinned_percent) / 100;
        let pinned = self.pinned.load(Ordering::Relaxed);
        let holds = u128::from(pinned) <= share;
        if !holds && !keeping.pins_said {
            log::error!(
                "pinned objects hold {pinned} bytes, more than their share of {share}: the oldest give way"
            );
        }
        keeping.pins_said = !holds;
        holds
    }

    /// Takes what is left of a segment out of the index; the files that go with it.
    fn drop_entries(&self, segment: u32, entries: &[Entry], emergency: bool) -> Vec<Large> {
        let now = self.clock.now();
        let mut larges = Vec::new();
        for entry in entries {
            let place = Place {
                segment,
                offset: entry.offset,
            };
            let gone = self.index.remove_if(entry.tag, |slot| slot.place == place);
            let Some(gone) = gone else {
                continue;
            };
            self.counters.evicted.add(1);
            self.counters.evicted_bytes.add(entry.weight());
            if gone.flags() & PINNED != 0 {
                self.counters.pins_broken.add(1);
                self.count_pinned(&gone, false);
            }
            if emergency && held(gone.hold, now) {
                self.counters.holds_broken.add(1);
            }
            if gone.flags() & ENTRY != 0 && self.is_expired(gone.last) {
                self.counters.expired.add(1);
            }
            if gone.flags() & LARGE != 0 {
                larges.extend(lock(&self.larges).remove(&place));
            }
        }
        larges
    }

    /// What the index knows of a segment that cannot be read.
    fn entries_by_index(&self, segment: u32) -> Vec<Entry> {
        let mut entries = Vec::new();
        for shard in 0..SHARDS {
            self.index.for_each(shard, |slot| {
                if slot.place.segment == segment {
                    entries.push(Entry {
                        tag: slot.tag,
                        offset: slot.place.offset,
                        size: slot.size(),
                        kind: Kind::Object,
                        flags: slot.flags(),
                        pages: 0,
                        file: 0,
                    });
                }
            });
        }
        entries
    }

    /// Evicts segments whose newest record is older than objects may get.
    pub(crate) fn evict_aged(&self) -> Result<(), Error> {
        let Some(most) = self.settings.max_age else {
            return Ok(());
        };
        let before = self.clock.now().saturating_sub(most.as_millis() as u64);
        let mut keeping = lock(&self.keeping);
        while self
            .all_segments()
            .first()
            .is_some_and(|oldest| oldest.newest.load(Ordering::Relaxed) < before)
        {
            if !self.evict_oldest(&mut keeping, false)? {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Volume {
    /// Evicts the oldest segment, whether room is needed or not; in an emergency nothing is copied.
    pub(crate) fn evict_one(&self, emergency: bool) -> Result<bool, Error> {
        self.evict_oldest(&mut lock(&self.keeping), emergency)
    }
}
