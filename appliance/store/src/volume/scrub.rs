//! The scrub: reads what lies there, at a bounded rate, and drops what does not check.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::read::{Body, Miss, read_part};
use super::{Record, Segment, Volume, lock};
use crate::format::ALIGN;
use crate::format::segment::Entry;
use crate::index::{Place, Slot};

/// Bytes of a body that are read at a time.
const PIECE: u64 = 256 * 1024;

impl Volume {
    /// Reads on where the last call ended, about `budget` bytes; whether a turn ended.
    pub(crate) fn scrub(&self, budget: u64) -> bool {
        let mut cursor = lock(&self.keeping).scrub;
        let mut left = budget;
        let mut segments = self.all_segments();
        segments.retain(|segment| segment.header.id >= cursor.segment);
        for segment in segments {
            let id = segment.header.id;
            // What is open was written a moment ago.
            if lock(&self.log)
                .open
                .as_ref()
                .is_some_and(|open| open.segment.header.id == id)
            {
                break;
            }
            if id > cursor.segment {
                cursor = Place {
                    segment: id,
                    offset: 0,
                };
            }
            // A segment that went or cannot be read has nothing to be scrubbed.
            let Ok(entries) = segment.entries() else {
                self.counters.read_errors.add(1);
                continue;
            };
            let first = entries.partition_point(|entry| entry.offset < cursor.offset);
            for entry in &entries[first..] {
                let place = Place {
                    segment: id,
                    offset: entry.offset,
                };
                if left == 0 {
                    lock(&self.keeping).scrub = place;
                    return false;
                }
                let slot = self.index.get(entry.tag);
                let Some(slot) = slot.filter(|slot| slot.place == place) else {
                    continue;
                };
                let bytes = u64::from(entry.size) * ALIGN;
                left = left.saturating_sub(entry.weight());
                self.counters.scrubbed_bytes.add(entry.weight());
                let checked = self
                    .record_in(&segment, place, bytes, true)
                    .and_then(|record| self.check_body(&record));
                match checked {
                    Ok(()) | Err(Miss::Gone | Miss::Wait) => {}
                    Err(miss) => {
                        if let Miss::Failed(error) = &miss {
                            self.counters.read_errors.add(1);
                            log::error!("{}: {error}", self.path(&segment.path).display());
                        }
                        log::warn!(
                            "{}: the record at byte {} is damaged, dropped",
                            self.path(&segment.path).display(),
                            place.byte()
                        );
                        self.drop_damaged(&slot);
                    }
                }
            }
        }
        lock(&self.keeping).scrub = Place::default();
        self.counters.scrub_turns.add(1);
        true
    }

    /// Reads all of a body.
    pub(crate) fn check_body(&self, record: &Record) -> Result<(), Miss> {
        let Body::There(source, offset) = &record.body else {
            return Ok(());
        };
        let mut at = 0;
        while at < record.head.length {
            let end = (at + PIECE).min(record.head.length);
            read_part(&record.head, source, *offset, at..end, true)?;
            at = end;
        }
        Ok(())
    }

    /// Bytes that eviction waits for: unlinked, but still read.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Bytes of pinned objects.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned.load(Ordering::Relaxed)
    }
}

/// Told of a record that the index points at; says whether to go on.
type Each<'a> = dyn FnMut(&Arc<Segment>, &Entry, &Slot) -> ControlFlow<()> + 'a;

impl Volume {
    /// Calls `each` for the records that the index points at, oldest first, until it breaks.
    pub(crate) fn each_live(&self, each: &mut Each<'_>) {
        for segment in self.all_segments() {
            let Ok(entries) = self.entries(&segment) else {
                self.counters.read_errors.add(1);
                continue;
            };
            for entry in entries.iter() {
                if let Some(slot) = self.live(segment.header.id, entry)
                    && each(&segment, entry, &slot).is_break()
                {
                    return;
                }
            }
        }
    }
}
