//! Making the log durable, and what follows when that fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::log::{Log, Open, Unsynced};
use super::{Large, Segment, Volume, lock};
use crate::Error;
use crate::disk::Flush;
use crate::format::record::{LARGE, PINNED};
use crate::format::segment::footer;
use crate::index::Place;

/// After so many failed fsyncs in a row the volume takes no more writes until a check succeeds.
pub(crate) const FAILURES: u32 = 3;

impl Volume {
    /// Makes all that was appended before the call durable, and seals full segments.
    pub(crate) fn sync(&self, why: Flush) -> Result<(), Error> {
        let _syncing = lock(&self.syncing);
        let (open, closing, garbage) = {
            let mut log = lock(&self.log);
            // Not taken yet: if this fails, withdrawing gives some of it back.
            let garbage = lock(&self.garbage).len();
            let open = log.open.as_mut().and_then(|open| {
                (open.tail > open.synced).then(|| {
                    let unsynced = std::mem::take(&mut open.unsynced);
                    (Arc::clone(&open.segment), open.tail, unsynced)
                })
            });
            (open, std::mem::take(&mut log.closing), garbage)
        };
        let mut outcome = Ok(());
        for closing in closing {
            outcome = outcome.and(self.close(closing, why));
        }
        if let Some((segment, tail, unsynced)) = open {
            let synced = segment.file.sync(why);
            let synced = synced.map_err(Error::io(&self.path(&segment.path), "sync"));
            let mut log = lock(&self.log);
            let id = segment.header.id;
            match &synced {
                Ok(()) => {
                    let closing = log.closing.iter_mut().rev();
                    let mut opens = closing.filter(|open| open.segment.header.id == id);
                    if let Some(open) = opens.next() {
                        open.synced = tail;
                    } else if let Some(open) = &mut log.open
                        && open.segment.header.id == id
                    {
                        open.synced = tail;
                    }
                    self.synced_well(&mut log);
                }
                Err(error) => {
                    self.sync_failed(&mut log, id, error);
                    self.withdraw(&unsynced);
                }
            }
            outcome = outcome.and(synced);
        }
        outcome?;
        let garbage: Vec<_> = lock(&self.garbage)
            .drain(..garbage)
            .map(|(_, large)| large)
            .collect();
        self.remove_larges(&garbage)
    }

    /// Makes the records of a full segment durable, then its footer.
    fn close(&self, closing: Open, why: Flush) -> Result<(), Error> {
        let segment = &closing.segment;
        let path = self.path(&segment.path);
        if closing.tail > closing.synced
            && let Err(error) = segment.file.sync(why)
        {
            let error = Error::io(&path, "sync")(error);
            let mut log = lock(&self.log);
            self.give_up(&mut log, &closing, &error);
            return Err(error);
        }
        let written = self.seal(segment, &closing.entries, closing.tail, closing.newest);
        // Without a footer the segment is scanned at the next start; its records are durable.
        if let Err(error) = written {
            self.counters.write_errors.add(1);
            log::warn!("{error}; the next start scans it");
        }
        let mut log = lock(&self.log);
        self.synced_well(&mut log);
        Ok(())
    }

    /// Writes the footer of a segment and cuts it there.
    pub(super) fn seal(
        &self,
        segment: &Segment,
        entries: &[crate::format::segment::Entry],
        end: u64,
        newest: u64,
    ) -> Result<(), Error> {
        let (at, bytes) = footer(&segment.header, entries, end, newest);
        let length = at + bytes.len() as u64;
        let sealed = || {
            // It may be longer than what was allocated by less than a megabyte: room for it is asked
            // for by the write.
            segment.file.write_at(&bytes, at)?;
            segment.file.set_length(length)?;
            segment.file.sync(Flush::Footer)
        };
        sealed().map_err(Error::io(&self.path(&segment.path), "seal"))?;
        segment.bytes.store(length, Ordering::Relaxed);
        segment.newest.store(newest, Ordering::Relaxed);
        *lock(&segment.memory) = None;
        Ok(())
    }

    pub(super) fn synced_well(&self, log: &mut Log) {
        log.failures = 0;
        *lock(&self.trouble) = None;
    }

    /// An fsync of a segment failed: it is never written to or synced again, what was published
    /// since the last good one is withdrawn.
    pub(super) fn sync_failed(&self, log: &mut Log, id: u32, error: &Error) {
        let open = log.open.take_if(|open| open.segment.header.id == id);
        let at = log
            .closing
            .iter()
            .position(|open| open.segment.header.id == id);
        if let Some(open) = open.or_else(|| at.map(|at| log.closing.remove(at))) {
            self.give_up(log, &open, error);
        }
    }

    fn give_up(&self, log: &mut Log, open: &Open, error: &Error) {
        self.counters.sync_errors.add(1);
        log.failures += 1;
        let segment = &open.segment;
        let durable = open
            .entries
            .iter()
            .take_while(|entry| u64::from(entry.offset) * crate::format::ALIGN < open.synced);
        *lock(&segment.memory) = Some(Arc::new(durable.copied().collect()));
        self.withdraw(&open.unsynced);
        log::error!(
            "{error}: the segment is closed, what was stored in it since the last sync is withdrawn"
        );
        *lock(&self.trouble) = Some(error.to_string());
    }

    /// Takes back what was published.
    fn withdraw(&self, unsynced: &[Unsynced]) {
        // The newest first: the oldest "before" must be what remains.
        for Unsynced {
            slot,
            removal,
            before,
        } in unsynced.iter().rev()
        {
            if *removal {
                if self.index.get(slot.tag).is_some() {
                    continue;
                }
            } else {
                let gone = self
                    .index
                    .remove_if(slot.tag, |there| there.place == slot.place);
                let Some(gone) = gone else {
                    continue;
                };
                self.counters.withdrawn.add(1);
                lock(&self.withdrawn).insert(slot.tag, slot.place.segment);
                if gone.flags() & PINNED != 0 {
                    self.count_pinned(&gone, false);
                }
            }
            let large = lock(&self.larges).remove(&slot.place);
            let before = before.filter(|before| self.segment(before.place.segment).is_some());
            let large = match before {
                Some(before) if before.flags() & LARGE != 0 => self.give_back(before.place, large),
                _ => large,
            };
            if let Some(large) = large {
                lock(&self.garbage).push((slot.place, large));
            }
            let Some(before) = before else {
                continue;
            };
            if before.flags() & LARGE == 0 || lock(&self.larges).contains_key(&before.place) {
                self.index.put_newer(before);
                if before.flags() & PINNED != 0 {
                    self.count_pinned(&before, true);
                }
            }
        }
    }

    /// Gives the record at `place` its file back. One that was replaced has its own, which waits to be
    /// removed; one that was copied out of its segment lent its file to the copy, whose is `large`.
    /// Returns `large` if that is not it.
    fn give_back(&self, place: Place, large: Option<Large>) -> Option<Large> {
        let mut garbage = lock(&self.garbage);
        let at = garbage.iter().position(|(named_by, _)| *named_by == place);
        let (own, rest) = match at {
            Some(at) => (Some(garbage.remove(at).1), large),
            None => (large, None),
        };
        drop(garbage);
        if let Some(own) = own {
            lock(&self.larges).insert(place, own);
        }
        rest
    }

    /// Removes files that nothing names any more.
    pub(super) fn remove_larges(&self, larges: &[Large]) -> Result<(), Error> {
        for large in larges {
            let path = super::large::path(large.file);
            let removed = self.disk.unlink(&path);
            let _ = self
                .large_bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                    Some(bytes.saturating_sub(large.bytes))
                });
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(&self.path(&path), "remove")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
