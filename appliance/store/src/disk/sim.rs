//! A file system in memory that loses power, lies and fills up.
//!
//! Every change is recorded, so that a test can ask for the disk as a power cut after any of them
//! might have left it: what was flushed is there; of the rest, writes survive by sectors and names by
//! operation, each or not, in any combination that the test's random numbers choose.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, Flush, Room, Surroundings};

const SECTOR: usize = 512;

/// What a power cut leaves of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing.
    Flushed,
    /// Everything.
    All,
    /// A part that follows from the number.
    Some(u64),
}

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
        super::super::volume::lock(&self.0)
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

    /// The disk as it is, for a process that was killed: nothing is lost.
    pub(crate) fn killed(&self) -> Self {
        let state = self.state();
        let copy = Self::new(state.capacity);
        {
            let mut new = copy.state();
            new.names = state.names.clone();
            for file in state.names.values() {
                new.files
                    .insert(*file, state.files.get(file).cloned().unwrap_or_default());
                let allocated = state.allocated.get(file).copied().unwrap_or(0);
                new.allocated.insert(*file, allocated);
            }
            new.next = state.next;
            new.around = state.around;
            new.start_recording();
        }
        copy
    }

    /// The disk as a power cut after `now` changes may leave it.
    pub(crate) fn cut(&self, now: usize, cut: Cut) -> Self {
        let state = self.state();
        let mut dice = Dice(match cut {
            Cut::Some(seed) => seed ^ now as u64,
            _ => 0,
        });
        let mut files: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut pending: HashMap<u64, Vec<&Op>> = HashMap::new();
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        let mut pending_names: Vec<&Vec<(String, Option<u64>)>> = Vec::new();
        let folder_of = |path: &str| {
            path.rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned()
        };
        for op in &state.ops[..now] {
            match op {
                Op::Write { file, .. } | Op::Length { file, .. } => {
                    pending.entry(*file).or_default().push(op);
                }
                Op::Sync { file } => {
                    for op in pending.remove(file).unwrap_or_default() {
                        apply(files.entry(*file).or_default(), op, |_| true);
                    }
                }
                Op::Lost { file } => {
                    for op in pending.remove(file).unwrap_or_default() {
                        // Its length is known, its bytes are not there.
                        apply(files.entry(*file).or_default(), op, |_| false);
                    }
                }
                Op::Names(changes) => pending_names.push(changes),
                Op::SyncFolder { folder } => {
                    pending_names.retain(|changes| {
                        let ours = folder_of(&changes[0].0) == *folder;
                        if ours {
                            set_names(&mut names, changes);
                        }
                        !ours
                    });
                }
            }
        }
        for (file, ops) in pending {
            for op in ops {
                let whole = dice.below(3);
                let keep = |_: usize| match cut {
                    Cut::Flushed => false,
                    Cut::All => true,
                    Cut::Some(_) => match whole {
                        0 => false,
                        1 => true,
                        _ => dice.below(2) == 0,
                    },
                };
                apply_maybe(files.entry(file).or_default(), op, keep);
            }
        }
        for changes in pending_names {
            let keep = match cut {
                Cut::Flushed => false,
                Cut::All => true,
                Cut::Some(_) => dice.below(2) == 0,
            };
            if keep {
                set_names(&mut names, changes);
            }
        }
        let copy = Self::new(state.capacity);
        {
            let mut new = copy.state();
            new.around = state.around;
            new.next = state.next;
            for file in names.values() {
                let content = files.get(file).cloned().unwrap_or_default();
                new.allocated
                    .insert(*file, (content.len() as u64).next_multiple_of(4096));
                new.files.insert(*file, content);
            }
            new.names = names;
            new.start_recording();
        }
        copy
    }

    /// Tells disks apart whose names or bytes differ.
    pub(crate) fn fingerprint(&self) -> u128 {
        let state = self.state();
        let mut hash = twox_hash::xxhash3_128::Hasher::new();
        for (path, file) in &state.names {
            let content = state.files.get(file).map_or(&[][..], Vec::as_slice);
            for part in [path.as_bytes(), content] {
                hash.write(&(part.len() as u64).to_le_bytes());
                hash.write(part);
            }
        }
        hash.finish_128()
    }

    /// Begins to record anew, from what is there, as if all of it were flushed.
    pub(crate) fn start_recording(&self) {
        self.state().start_recording();
    }
}

impl State {
    fn start_recording(&mut self) {
        let mut ops = Vec::new();
        for (path, file) in &self.names {
            let bytes: Arc<[u8]> = self.files.get(file).cloned().unwrap_or_default().into();
            ops.push(Op::Length {
                file: *file,
                length: bytes.len() as u64,
            });
            ops.push(Op::Write {
                file: *file,
                at: 0,
                bytes,
            });
            ops.push(Op::Sync { file: *file });
            ops.push(Op::Names(vec![(path.clone(), Some(*file))]));
        }
        for folder in ["", "segments", "large"] {
            ops.push(Op::SyncFolder {
                folder: folder.into(),
            });
        }
        self.ops = ops;
    }
}

fn set_names(names: &mut BTreeMap<String, u64>, changes: &[(String, Option<u64>)]) {
    for (path, file) in changes {
        match file {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}

fn apply(content: &mut Vec<u8>, op: &Op, keep: impl FnMut(usize) -> bool) {
    apply_maybe(content, op, keep);
}

/// Applies the sectors of a write for which `keep` says so.
fn apply_maybe(content: &mut Vec<u8>, op: &Op, mut keep: impl FnMut(usize) -> bool) {
    match op {
        Op::Write { at, bytes, .. } => {
            let (mut at, mut rest) = (*at as usize, &bytes[..]);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if keep(at) {
                    if content.len() < at + now.len() {
                        content.resize(at + now.len(), 0);
                    }
                    content[at..at + now.len()].copy_from_slice(now);
                }
                (at, rest) = (at + now.len(), later);
            }
        }
        Op::Length { length, .. } if keep(0) => content.resize(*length as usize, 0),
        _ => {}
    }
}

impl Disk for SimDisk {
    fn root(&self) -> &Path {
        Path::new("/sim")
    }

    fn prepare(&self, _: &[&str]) -> io::Result<()> {
        self.state().around = true;
        Ok(())
    }

    fn surroundings(&self) -> io::Result<Surroundings> {
        let state = self.state();
        Ok(match (state.around, state.foreign) {
            (true, _) => Surroundings::Ours,
            (_, true) => Surroundings::Foreign,
            _ => Surroundings::Empty,
        })
    }

    fn lock(&self, _: &str) -> io::Result<Arc<dyn Debug + Send + Sync>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Arc::new(SimLock(self.clone())))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.writable()?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if state.names.len() as u64 >= state.max_files {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = state.next;
        state.next += 1;
        state.names.insert(path.into(), file);
        state.ops.push(Op::Names(vec![(path.into(), Some(file))]));
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn nameless(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.writable()?;
        if state.names.len() as u64 >= state.max_files {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = state.next;
        state.next += 1;
        *state.handles.entry(file).or_default() += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn link(&self, file: &dyn DiskFile, path: &str) -> io::Result<()> {
        let file: &SimFile = file.as_any().downcast_ref().ok_or(ErrorKind::Unsupported)?;
        let mut state = self.state();
        state.writable()?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.names.insert(path.into(), file.file);
        state
            .ops
            .push(Op::Names(vec![(path.into(), Some(file.file))]));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writable()?;
        let file = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        let old = state.names.insert(to.into(), file);
        // One change: the new name is there, and the old one gone, or neither.
        state.ops.push(Op::Names(vec![
            (to.into(), Some(file)),
            (from.into(), None),
        ]));
        if let Some(old) = old {
            state.collect(old);
        }
        Ok(())
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writable()?;
        let file = state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        state.ops.push(Op::Names(vec![(path.into(), None)]));
        state.collect(file);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state
            .names
            .keys()
            .filter_map(|path| match path.rsplit_once('/') {
                Some((of, name)) => (of == folder).then(|| name.to_owned()),
                None => folder.is_empty().then(|| path.clone()),
            });
        Ok(names.collect())
    }

    fn sync_folder(&self, folder: &str, why: Flush) -> io::Result<()> {
        let mut state = self.state();
        if let Some(at) = state.failing.iter().position(|failing| *failing == why) {
            state.failing.remove(at);
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.skipped != Some(why) {
            state.ops.push(Op::SyncFolder {
                folder: folder.into(),
            });
        }
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        let state = self.state();
        Ok(Room {
            total: state.capacity,
            free: state.capacity.saturating_sub(state.used()),
            files: state.max_files.saturating_sub(state.names.len() as u64),
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.failing_reads > 0 {
            state.failing_reads -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        let content = state.content(self.file);
        let from = (offset as usize).min(content.len());
        let length = buffer.len().min(content.len() - from);
        buffer[..length].copy_from_slice(&content[from..from + length]);
        Ok(length)
    }

    fn read_ready(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writable()?;
        let failing = std::mem::take(&mut state.failing_writes);
        let fails = failing.contains(&0);
        state.failing_writes = failing
            .into_iter()
            .filter_map(|n| n.checked_sub(1))
            .collect();
        let end = offset + bytes.len() as u64;
        state.grow(self.file, end)?;
        let bytes = if fails {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let end = offset as usize + bytes.len();
        let content = state.content(self.file);
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        state.ops.push(Op::Write {
            file: self.file,
            at: offset,
            bytes: bytes.into(),
        });
        if fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn sync(&self, why: Flush) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(at) = state.failing.iter().position(|failing| *failing == why) {
            state.failing.remove(at);
            state.ops.push(Op::Lost { file: self.file });
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.skipped != Some(why) {
            state.ops.push(Op::Sync { file: self.file });
        }
        Ok(())
    }

    fn forget(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut content = Vec::new();
        let mut pending: Vec<&Op> = Vec::new();
        for op in &state.ops {
            match op {
                Op::Write { file, .. } | Op::Length { file, .. } if *file == self.file => {
                    pending.push(op);
                }
                Op::Sync { file } if *file == self.file => {
                    pending
                        .drain(..)
                        .for_each(|op| apply(&mut content, op, |_| true));
                }
                Op::Lost { file } if *file == self.file => pending.clear(),
                _ => {}
            }
        }
        pending
            .drain(..)
            .for_each(|op| apply(&mut content, op, |_| true));
        let length = state.content(self.file).len();
        content.resize(length, 0);
        *state.content(self.file) = content;
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writable()?;
        state.grow(self.file, offset + length)?;
        let content = state.content(self.file);
        let length = (content.len() as u64).max(offset + length);
        content.resize(length as usize, 0);
        state.ops.push(Op::Length {
            file: self.file,
            length,
        });
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.writable()?;
        state.content(self.file).resize(length as usize, 0);
        state
            .allocated
            .insert(self.file, length.next_multiple_of(4096));
        state.ops.push(Op::Length {
            file: self.file,
            length,
        });
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().content(self.file).len() as u64)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
