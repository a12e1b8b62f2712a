//! A file system in memory that loses power, lies and fills up.
//!
//! Every change is recorded, so that a test can ask for the disk as a power cut after any of them
//! might have left it: what was flushed is there; of the rest, writes survive by sectors and names by
//! operation, each or not, in any combination that the test's random numbers choose.

mod cut;
mod files;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use cut::Cut;

use super::Flush;

#[derive(Clone, Debug)]
enum Op {
    Write {
        file: u64,
        at: u64,
        bytes: Arc<[u8]>,
    },
    Length {
        file: u64,
        length: u64,
    },
    Sync {
        file: u64,
    },
    Names(Vec<(String, Option<u64>)>),
    SyncFolder {
        folder: String,
    },
    /// Writes of the file that are pending now never reach the disk: its fsync failed.
    Lost {
        file: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, Vec<u8>>,
    allocated: HashMap<u64, u64>,
    names: BTreeMap<String, u64>,
    next: u64,
    ops: Vec<Op>,
    capacity: u64,
    max_files: u64,
    skipped: Option<Flush>,
    /// Flushes of this sort that fail: each fails once, and the data is gone.
    failing: Vec<Flush>,
    /// Writes that fail, by their number from now.
    failing_writes: HashSet<u64>,
    /// Reads that fail.
    failing_reads: u64,
    locked: bool,
    read_only: bool,
    foreign: bool,
    around: bool,
    handles: HashMap<u64, usize>,
}

/// The file system; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        let count = state.handles.entry(self.file).or_insert(1);
        *count -= 1;
        state.collect(self.file);
    }
}

impl State {
    /// Frees a file that has no name and is not open.
    fn collect(&mut self, file: u64) {
        let open = self.handles.get(&file).is_some_and(|count| *count > 0);
        if !open && !self.names.values().any(|named| *named == file) {
            self.allocated.remove(&file);
            self.files.remove(&file);
        }
    }

    fn used(&self) -> u64 {
        self.allocated.values().sum()
    }

    fn grow(&mut self, file: u64, end: u64) -> io::Result<()> {
        let has = self.allocated.get(&file).copied().unwrap_or(0);
        let needs = end.next_multiple_of(4096);
        if needs > has {
            if self.used() + (needs - has) > self.capacity {
                return Err(ErrorKind::StorageFull.into());
            }
            self.allocated.insert(file, needs);
        }
        Ok(())
    }

    fn content(&mut self, file: u64) -> &mut Vec<u8> {
        self.files.entry(file).or_default()
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }
}

/// Random enough, and the same every time.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::format::mix(self.0)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }
}

impl SimDisk {
    pub(crate) fn new(capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            capacity,
            next: 1,
            max_files: 1 << 20,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        crate::volume::lock(&self.0)
    }

    /// Number of changes so far.
    pub(crate) fn now(&self) -> usize {
        self.state().ops.len()
    }

    /// Numbers of changes that are flushes, from `from` on: just after each, a cut is interesting.
    pub(crate) fn flushes(&self, from: usize) -> Vec<usize> {
        let state = self.state();
        let flush = |op: &Op| matches!(op, Op::Sync { .. } | Op::SyncFolder { .. });
        let ops = state.ops.iter().enumerate().skip(from);
        ops.filter(|(_, op)| flush(op))
            .map(|(at, _)| at + 1)
            .collect()
    }

    /// Flushes of this sort do nothing and say yes.
    pub(crate) fn skip(&self, flush: Option<Flush>) {
        self.state().skipped = flush;
    }

    /// The next flush of this sort fails, its data is gone, and later ones say yes.
    pub(crate) fn fail_flush(&self, flush: Flush) {
        self.state().failing.push(flush);
    }

    /// The write after so many others fails with EIO.
    pub(crate) fn fail_write(&self, after: u64) {
        self.state().failing_writes.insert(after);
    }

    /// So many reads fail with EIO.
    pub(crate) fn fail_reads(&self, count: u64) {
        self.state().failing_reads = count;
    }

    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    pub(crate) fn set_foreign(&self) {
        self.state().foreign = true;
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.state().capacity = capacity;
    }

    pub(crate) fn set_max_files(&self, files: u64) {
        self.state().max_files = files;
    }

    pub(crate) fn used(&self) -> u64 {
        self.state().used()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// Changes the bytes of a file behind everybody's back.
    pub(crate) fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[path];
        change(state.content(file));
    }

    pub(crate) fn length_of(&self, path: &str) -> usize {
        let mut state = self.state();
        let file = state.names[path];
        state.content(file).len()
    }

    /// As if the disk was taken out, and in again, with nothing on it.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        let capacity = state.capacity;
        *state = State {
            capacity,
            next: 1,
            max_files: 1 << 20,
            ..State::default()
        };
    }
}
