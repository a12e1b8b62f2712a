//! A volume: a log of segments, files of large objects, and the index over both.
//!
//! | file | what |
//! |---|---|
//! | `log.rs` | appending, publishing |
//! | `sync.rs` | making durable, sealing, what a failed fsync leads to |
//! | `segment.rs` | a segment as it is open |
//! | `read.rs` | finding records and checking them |
//! | `hot.rs` | small ones in memory |
//! | `large.rs` | bodies in files of their own |
//! | `recover.rs`, `checkpoint.rs` | the index after a start |
//! | `evict.rs`, `epochs.rs`, `room.rs` | what goes, and when |
//! | `cleans.rs`, `label.rs` | generations of projects; the superblock |
//! | `scrub.rs` | what the disk did to the bytes |
//! | `threads.rs` | who calls all that |
//!
//! Locks, in the order in which they may be taken: `keeping`, `syncing`, `log`, then any one of the others.

mod checkpoint;
mod cleans;
mod epochs;
mod evict;
mod hot;
mod label;
mod large;
mod log;
mod read;
mod recover;
mod room;
mod scrub;
mod segment;
mod sync;
mod threads;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) use cleans::Generations;
use label::Label;
pub(crate) use label::{Found, Look, Members64};
pub(crate) use large::LargeBody;
pub use log::Existing;
pub(crate) use log::{Done, Put, Work};
pub(crate) use read::{Body, Miss, Record, Source, read_part};
pub(crate) use segment::{Segment, id as segment_id};
pub(crate) use threads::Threads;

use crate::Error;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::disk::{Disk, Room};
use crate::index::{Index, Place, Slot};
use crate::settings::{self, Settings};

/// A file of its own, by the place of its record.
#[derive(Clone, Copy, Debug)]
struct Large {
    file: u64,
    bytes: u64,
}

/// An open volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    /// Held as long as the volume is open.
    _lock: Arc<dyn Debug + Send + Sync>,
    pub(crate) label: Label,
    pub(crate) segment_bytes: u64,
    pub(crate) index: Index,
    hot: hot::Hot,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    larges: Mutex<HashMap<Place, Large>>,
    /// Sum of the lengths in `larges`, and of files that go with the next sync.
    large_bytes: AtomicU64,
    log: Mutex<log::Log>,
    /// Files that nothing needs once what was written before is durable. Not in the log, whose lock
    /// is held while it is written. Each with the record that named it: it may be needed again.
    garbage: Mutex<Vec<(Place, Large)>>,
    /// Held while anything is made durable: an error of fsync is reported once, to one caller.
    syncing: Mutex<()>,
    /// Held by eviction, checkpoint and scrub, one at a time.
    keeping: Mutex<Keeping>,
    epochs: Mutex<epochs::Epochs>,
    epoch: AtomicU16,
    /// Bytes ever appended, files of their own included.
    written: AtomicU64,
    /// Bytes of segments that are gone but still read, shared with the segments.
    pending: Arc<AtomicU64>,
    /// Bytes of pinned records and their files.
    pinned: AtomicU64,
    /// Room on the disk when it was last asked for, and what follows from it.
    room: Mutex<Room>,
    capacity: AtomicU64,
    pub(crate) generations: Arc<Generations>,
    cleans: Mutex<cleans::Copies>,
    pub(crate) counters: Counters,
    trouble: Mutex<Option<String>>,
    /// Tags of withdrawn records, and their segments, where the disk may hold them all the same.
    withdrawn: Mutex<HashMap<u64, u32>>,
    recovering: AtomicBool,
    recovery: Mutex<Option<recover::Recovery>>,
    /// Source of numbers that nobody had before.
    random: AtomicU64,
}

#[derive(Debug, Default)]
struct Keeping {
    /// Serial of the newest checkpoint.
    serial: u64,
    /// Where the scrub is.
    scrub: Place,
    /// Bytes that may be copied because they are hot.
    allowance: u64,
    /// Whether it was said that pins give way.
    pins_said: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is done under the locks of this crate leaves nothing half-changed when it panics, or
    // recovery of the next start repairs it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    /// Opens the volume that was looked at: its index is complete after [`Volume::recover_rest`].
    pub(crate) fn open(
        found: Found,
        settings: &Settings,
        generations: Arc<Generations>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let disk = Arc::clone(&found.disk);
        let room = disk
            .room()
            .map_err(Error::io(disk.root(), "ask for room on"))?;
        let total = settings.capacity.unwrap_or(u64::MAX).min(room.total);
        let segment_bytes = settings
            .segment_bytes
            .unwrap_or_else(|| settings::segment_bytes(total));
        let cleans = cleans::Copies::new(Arc::clone(&disk));
        let volume = Self {
            disk,
            clock,
            settings: settings.clone(),
            _lock: found.lock,
            label: found.label,
            segment_bytes,
            index: Index::new(),
            hot: hot::Hot::new(settings.hot_bytes),
            segments: RwLock::default(),
            larges: Mutex::default(),
            large_bytes: AtomicU64::new(0),
            log: Mutex::default(),
            garbage: Mutex::default(),
            syncing: Mutex::default(),
            keeping: Mutex::default(),
            epochs: Mutex::default(),
            epoch: AtomicU16::new(0),
            written: AtomicU64::new(0),
            pending: Arc::default(),
            pinned: AtomicU64::new(0),
            room: Mutex::new(room),
            capacity: AtomicU64::new(total),
            generations,
            cleans: Mutex::new(cleans),
            counters: Counters::default(),
            trouble: Mutex::default(),
            withdrawn: Mutex::default(),
            recovering: AtomicBool::new(true),
            recovery: Mutex::default(),
            random: AtomicU64::new(found.seed),
        };
        volume.recover()?;
        volume.look()?;
        Ok(volume)
    }

    fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let segments = segments.unwrap_or_else(PoisonError::into_inner);
        segments.get(&id).cloned()
    }

    /// All segments, oldest first.
    pub(crate) fn all_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.read();
        let segments = segments.unwrap_or_else(PoisonError::into_inner);
        segments.values().cloned().collect()
    }

    fn add_segment(&self, segment: &Arc<Segment>) {
        let segments = self.segments.write();
        let mut segments = segments.unwrap_or_else(PoisonError::into_inner);
        segments.insert(segment.header.id, Arc::clone(segment));
    }

    fn drop_segment(&self, id: u32) {
        let segments = self.segments.write();
        segments.unwrap_or_else(PoisonError::into_inner).remove(&id);
        lock(&self.withdrawn).retain(|_, segment| *segment != id);
    }

    /// Whether the index may lack a record of a tag that the log has: recovery did not come to it yet,
    /// or it was withdrawn and its segment is there. A removal is then written all the same.
    pub(crate) fn may_return(&self, tag: u64) -> bool {
        self.is_recovering() || lock(&self.withdrawn).contains_key(&tag)
    }

    /// A number that nobody had before.
    fn number(&self) -> u64 {
        crate::format::mix(self.random.fetch_add(1, Ordering::Relaxed)) | 1
    }

    pub(crate) fn epoch(&self) -> u16 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// A path below the volume, for messages.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.disk.root().join(path)
    }

    /// Why nothing can be written, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Writes to the disk to see whether it works again.
    ///
    /// # Errors
    ///
    /// It does not.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        if self.trouble().is_none() {
            return Ok(());
        }
        self.make_room(self.segment_bytes)?;
        let id = {
            let mut log = lock(&self.log);
            log.next_id += 1;
            log.next_id - 1
        };
        let segment = self.note(self.make_segment(id))?;
        let removed = self.disk.unlink(&segment.path);
        self.note(removed.map_err(Error::io(&self.path(&segment.path), "remove")))?;
        self.synced_well(&mut lock(&self.log));
        Ok(())
    }

    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Relaxed)
    }

    /// Notes how a write went, for the status.
    pub(crate) fn note<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome
            && matches!(
                error,
                Error::Full { .. } | Error::ReadOnly { .. } | Error::Io { .. }
            )
        {
            self.counters.write_errors.add(1);
            *lock(&self.trouble) = Some(error.to_string());
        }
        outcome
    }

    /// Forgets the file of a slot that left the index; it goes with the next sync.
    fn release(&self, slot: &Slot) {
        if slot.flags() & crate::format::record::PINNED != 0 {
            self.count_pinned(slot, false);
        }
        if slot.flags() & crate::format::record::LARGE != 0
            && let Some(large) = lock(&self.larges).remove(&slot.place)
        {
            lock(&self.garbage).push((slot.place, large));
        }
    }

    /// Adds a slot to the sum of pinned bytes, or takes it off.
    fn count_pinned(&self, slot: &Slot, add: bool) {
        let large = lock(&self.larges)
            .get(&slot.place)
            .map_or(0, |large| large.bytes);
        let bytes = slot.bytes() + large;
        if add {
            self.pinned.fetch_add(bytes, Ordering::Relaxed);
        } else {
            let _ = self
                .pinned
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pinned| {
                    Some(pinned.saturating_sub(bytes))
                });
        }
    }
}
