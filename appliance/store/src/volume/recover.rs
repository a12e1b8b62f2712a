//! The index after a start (`FORMAT.md` 3).
//!
//! Records may be applied in any order: the one at the higher position wins, also over what is
//! stored while recovery goes on.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Large, Segment, Volume, large, lock, segment};
use crate::Error;
use crate::disk::{DiskFile, Flush};
use crate::format::checkpoint::{self, Header, Item};
use crate::format::record::{Kind, LARGE, PINNED};
use crate::format::segment::Entry;
use crate::index::{Place, Slot};

/// Paths of the two checkpoints.
pub(super) const CHECKPOINTS: [&str; 2] = ["checkpoint.a", "checkpoint.b"];

/// What recovery has to know until it is over.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Highest position of a removal, by tag.
    removed: HashMap<u64, Place>,
    /// Highest position of a pin or unpin, by tag, and which it is.
    pins: HashMap<u64, (Place, bool)>,
    /// Files of their own that were there at the start.
    files: HashSet<u64>,
    /// Segments that the checkpoint covers, and those that were not applied yet; newest first.
    covered: Vec<Arc<Segment>>,
    rest: Vec<Arc<Segment>>,
    checkpoint: Option<(Header, Arc<dyn DiskFile>)>,
    /// Epoch of what no checkpoint knows.
    epoch: u16,
}

impl Volume {
    /// Finds what there is, scans what is not sealed. After it the volume serves and stores, the
    /// rest of the index comes with [`Volume::recover_rest`].
    pub(super) fn recover(&self) -> Result<(), Error> {
        let root = self.disk.root();
        let list = |folder| self.disk.list(folder).map_err(Error::io(root, "list"));
        let mut recovery = Recovery {
            files: list("large")?
                .iter()
                .filter_map(|name| large::number(name))
                .collect(),
            ..Recovery::default()
        };
        let mut ids: Vec<u32> = list("segments")?
            .iter()
            .filter_map(|name| segment::id(name))
            .collect();
        ids.sort_unstable();
        lock(&self.log).next_id = ids.last().map_or(1, |id| id + 1);
        let mut segments = Vec::new();
        for id in ids {
            match Segment::open(&*self.disk, id) {
                Ok(Some(segment)) => segments.push(Arc::new(segment)),
                Ok(None) => {
                    log::warn!(
                        "{}: not a segment, removed",
                        self.path(&segment::path(id)).display()
                    );
                    let _ = self.disk.unlink(&segment::path(id));
                }
                Err(error) => {
                    self.counters.read_errors.add(1);
                    log::error!(
                        "{}: left out: {error}",
                        self.path(&segment::path(id)).display()
                    );
                }
            }
        }
        for segment in &segments {
            self.add_segment(segment);
        }
        self.find_checkpoint(&mut recovery, &segments);
        let tail = recovery.checkpoint.as_ref().map(|(header, _)| header.tail);
        for segment in segments.into_iter().rev() {
            match segment.footer() {
                Ok(Some((trailer, _))) => {
                    segment.newest.store(trailer.time, Ordering::Relaxed);
                    if tail.is_some_and(|tail| segment.header.id < tail.segment) {
                        recovery.covered.push(segment);
                    } else {
                        recovery.rest.push(segment);
                    }
                }
                Ok(None) => {
                    // What the checkpoint covers it knows better: removals that came later may be in
                    // segments that are not read again.
                    let covered = tail.is_some_and(|tail| segment.header.id < tail.segment);
                    self.recover_unsealed(&mut recovery, &segment, !covered);
                    if covered {
                        recovery.covered.push(segment);
                    }
                }
                Err(error) => {
                    self.counters.read_errors.add(1);
                    log::error!("{}: left out: {error}", self.path(&segment.path).display());
                }
            }
        }
        *lock(&self.recovery) = Some(recovery);
        Ok(())
    }

    /// Takes the newest checkpoint that belongs here, and its epochs and large files.
    fn find_checkpoint(&self, recovery: &mut Recovery, segments: &[Arc<Segment>]) {
        let mut found: Vec<(Header, Arc<dyn DiskFile>)> = CHECKPOINTS
            .iter()
            .filter_map(|path| {
                let file = self.disk.open(path).ok()?;
                let header = Header::read(&*file).ok()??;
                (header.uuid == self.label.uuid).then_some((header, file))
            })
            .collect();
        found.sort_by_key(|(header, _)| header.serial);
        let generation = |id| {
            let segment = segments.iter().find(|segment| segment.header.id == id);
            segment.map(|segment| segment.header.generation)
        };
        while let Some((header, file)) = found.pop() {
            let keeping = &mut lock(&self.keeping);
            keeping.serial = keeping.serial.max(header.serial);
            let mut tail_is_here = false;
            let mut written = 0;
            let mut epochs = Vec::new();
            let read = checkpoint::read(&*file, &header, |item| {
                match item {
                    Item::Segment(id, known) => {
                        tail_is_here |= id == header.tail.segment && generation(id) == Some(known);
                    }
                    Item::Epoch(number, time, position) => epochs.push((number, time, position)),
                    Item::Large(place, file, bytes) => {
                        let there = recovery.files.contains(&file);
                        if tail_is_here && there && generation(place.segment).is_some() {
                            lock(&self.larges).insert(place, Large { file, bytes });
                        }
                    }
                    Item::Slot(_) => return ControlFlow::Break(()),
                }
                ControlFlow::Continue(())
            });
            if read.is_err() || !tail_is_here {
                continue;
            }
            for (number, time, position) in epochs {
                lock(&self.epochs).push(number, time, position);
                self.epoch.store(number, Ordering::Relaxed);
                (recovery.epoch, written) = (number, position);
            }
            self.written.store(written, Ordering::Relaxed);
            recovery.checkpoint = Some((header, file));
            break;
        }
        let larges: u64 = lock(&self.larges).values().map(|large| large.bytes).sum();
        self.large_bytes.store(larges, Ordering::Relaxed);
        if recovery.checkpoint.is_none() {
            // Nothing is known of recency: all that is found was last used before what comes now.
            let written = self.used();
            let now = u32::try_from(self.clock.now() / 1000).unwrap_or(u32::MAX);
            self.written.store(written, Ordering::Relaxed);
            let mut epochs = lock(&self.epochs);
            epochs.push(0, now, 0);
            epochs.push(1, now, written);
            self.epoch.store(1, Ordering::Relaxed);
        }
    }

    /// Scans a segment without a footer, and seals it.
    fn recover_unsealed(&self, recovery: &mut Recovery, segment: &Arc<Segment>, apply: bool) {
        let path = self.path(&segment.path);
        // What a scan finds in memory need not be on the disk: an fsync may have failed before, or now.
        let synced = segment.file.sync(Flush::Records);
        let synced = synced.and(segment.file.forget());
        let scan = match segment.scan() {
            Ok(scan) => scan,
            Err(error) => {
                self.counters.read_errors.add(1);
                log::error!("{}: left out: {error}", path.display());
                return;
            }
        };
        for entry in scan.entries.iter().filter(|_| apply) {
            self.apply(recovery, segment.header.id, entry);
        }
        let count = scan.entries.len();
        log::info!("{}: {count} records found by a scan", path.display());
        // On a disk that cannot be written it stays as it is, and is scanned again.
        let sealed = synced
            .map_err(Error::io(&path, "sync"))
            .and_then(|()| self.seal(segment, &scan.entries, scan.end, scan.newest));
        if let Err(error) = sealed {
            log::warn!("{error}");
            segment.newest.store(scan.newest, Ordering::Relaxed);
            *lock(&segment.memory) = Some(Arc::new(scan.entries));
        }
    }

    /// Completes the index: what is newer than the checkpoint, the checkpoint, or all footers.
    pub(crate) fn recover_rest(&self) {
        let Some(mut recovery) = lock(&self.recovery).take() else {
            return;
        };
        // Removals go on being noted: into a second one, which is merged at every step.
        *lock(&self.recovery) = Some(Recovery::default());
        let rest = std::mem::take(&mut recovery.rest);
        for segment in &rest {
            self.recover_segment(&mut recovery, segment);
        }
        let complete = match recovery.checkpoint.take() {
            None => false,
            Some((header, file)) => self.recover_checkpoint(&mut recovery, &header, &*file),
        };
        let covered = std::mem::take(&mut recovery.covered);
        if !complete {
            for segment in &covered {
                self.recover_segment(&mut recovery, segment);
            }
        }
        self.merge_removals(&mut recovery);
        for (tag, (place, pin)) in &recovery.pins {
            let mut changed = None;
            self.index.change(*tag, |slot| {
                if slot.place < *place && (slot.flags() & PINNED != 0) != *pin {
                    slot.set_flag(PINNED, *pin);
                    changed = Some(*slot);
                }
            });
            if let Some(slot) = changed {
                self.count_pinned(&slot, *pin);
            }
        }
        self.recovering.store(false, Ordering::Relaxed);
        *lock(&self.recovery) = None;
        self.sweep(&recovery.files);
    }

    fn merge_removals(&self, recovery: &mut Recovery) {
        let newer = lock(&self.recovery)
            .as_mut()
            .map(|newer| std::mem::take(&mut newer.removed));
        for (tag, place) in newer.unwrap_or_default() {
            self.apply_removal(recovery, tag, place);
        }
    }

    /// Notes a removal while recovery may still find what it removes.
    pub(super) fn note_removal(&self, tag: u64, place: Place) {
        if self.is_recovering()
            && let Some(recovery) = &mut *lock(&self.recovery)
        {
            let known = recovery.removed.entry(tag).or_insert(place);
            *known = place.max(*known);
        }
    }

    fn recover_segment(&self, recovery: &mut Recovery, segment: &Arc<Segment>) {
        self.merge_removals(recovery);
        match segment.entries() {
            Ok(entries) => {
                for entry in entries.iter().rev() {
                    self.apply(recovery, segment.header.id, entry);
                }
            }
            Err(error) => {
                self.counters.read_errors.add(1);
                log::error!("{}: left out: {error}", self.path(&segment.path).display());
            }
        }
    }

    fn recover_checkpoint(
        &self,
        recovery: &mut Recovery,
        header: &Header,
        file: &dyn DiskFile,
    ) -> bool {
        self.index
            .reserve(usize::try_from(header.counts[3]).unwrap_or(0).min(1 << 28));
        let segments: HashSet<u32> = self
            .all_segments()
            .iter()
            .map(|segment| segment.header.id)
            .collect();
        let mut count = 0_u64;
        let read = checkpoint::read(file, header, |item| {
            let Item::Slot(slot) = item else {
                return ControlFlow::Continue(());
            };
            count += 1;
            if count.is_multiple_of(1 << 16) {
                self.merge_removals(recovery);
            }
            let removed = recovery.removed.get(&slot.tag);
            if slot.place < header.tail
                && segments.contains(&slot.place.segment)
                && removed.is_none_or(|removed| *removed < slot.place)
                && self.label.owns(slot.tag, slot.place.segment)
                && (slot.flags() & LARGE == 0 || lock(&self.larges).contains_key(&slot.place))
            {
                self.recover_slot(&slot);
            }
            ControlFlow::Continue(())
        });
        match read {
            Ok(complete) => complete,
            Err(error) => {
                self.counters.read_errors.add(1);
                log::error!("checkpoint {}: {error}; footers are read", header.serial);
                false
            }
        }
    }

    /// Puts a slot of a checkpoint into the index; recency is known from nowhere else.
    fn recover_slot(&self, slot: &Slot) {
        let (put, there) = self.index.put_newer(*slot);
        if put && slot.flags() & PINNED != 0 {
            self.count_pinned(slot, true);
        }
        if there.is_some_and(|there| !put && there.place == slot.place) {
            let mut pinned = None;
            self.index.change(slot.tag, |there| {
                (there.last, there.hold) = (slot.last, slot.hold);
                if (there.flags() ^ slot.flags()) & PINNED != 0 {
                    pinned = Some(slot.flags() & PINNED != 0);
                    there.set_flag(PINNED, slot.flags() & PINNED != 0);
                }
            });
            if let Some(pinned) = pinned {
                self.count_pinned(slot, pinned);
            }
        }
    }

    /// Applies a record of the log.
    fn apply(&self, recovery: &mut Recovery, segment: u32, entry: &Entry) {
        let place = Place {
            segment,
            offset: entry.offset,
        };
        if !self.label.owns(entry.tag, segment) {
            return;
        }
        match entry.kind {
            Kind::Object => {
                let removed = recovery.removed.get(&entry.tag);
                if removed.is_some_and(|removed| *removed > place) {
                    return;
                }
                if entry.flags & LARGE != 0 {
                    if !recovery.files.contains(&entry.file) {
                        return;
                    }
                    let large = Large {
                        file: entry.file,
                        bytes: entry.large_bytes(),
                    };
                    // What a checkpoint said of it stays: it was counted so, to the byte.
                    lock(&self.larges).entry(place).or_insert_with(|| {
                        self.large_bytes.fetch_add(large.bytes, Ordering::Relaxed);
                        large
                    });
                }
                let slot = Slot::new(entry.tag, place, entry.size, entry.flags, recovery.epoch);
                let (put, there) = self.index.put_newer(slot);
                if put && entry.flags & PINNED != 0 {
                    self.count_pinned(&slot, true);
                }
                match there {
                    Some(there) if put => self.recovered_away(&there),
                    Some(there) if there.place != place => self.recovered_away(&slot),
                    _ => {}
                }
            }
            Kind::Removal => self.apply_removal(recovery, entry.tag, place),
            Kind::Pin | Kind::Unpin => {
                let pin = entry.kind == Kind::Pin;
                let known = recovery.pins.entry(entry.tag).or_insert((place, pin));
                if known.0 < place {
                    *known = (place, pin);
                }
            }
        }
    }

    fn apply_removal(&self, recovery: &mut Recovery, tag: u64, place: Place) {
        let known = recovery.removed.entry(tag).or_insert(place);
        *known = place.max(*known);
        if let Some(gone) = self.index.remove_if(tag, |slot| slot.place < place) {
            self.recovered_away(&gone);
        }
    }

    /// A record that a newer one hides; its file is swept at the end.
    fn recovered_away(&self, slot: &Slot) {
        if slot.flags() & PINNED != 0 {
            self.count_pinned(slot, false);
        }
        if let Some(large) = lock(&self.larges).remove(&slot.place) {
            self.large_bytes.fetch_sub(large.bytes, Ordering::Relaxed);
        }
    }

    /// Removes files that were there at the start and that no record names.
    fn sweep(&self, files: &HashSet<u64>) {
        // In this order: a file may become garbage meanwhile.
        let larges = lock(&self.larges);
        let mut named: HashSet<u64> = larges.values().map(|large| large.file).collect();
        drop(larges);
        named.extend(lock(&self.garbage).iter().map(|(_, large)| large.file));
        for file in files.difference(&named) {
            match self.disk.unlink(&large::path(*file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    log::warn!(
                        "{}: cannot remove: {error}",
                        self.path(&large::path(*file)).display()
                    );
                }
                _ => {}
            }
        }
    }
}
