//! Appending to the log and publishing what was appended.
//!
//! Everything that changes what a key means goes through [`Volume::append`], under one lock: the
//! order of records in the log is the order in which they were decided and published.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::segment::{self, Segment};
use super::{Large, Volume, lock};
use crate::Error;
use crate::disk::Flush;
use crate::format::record::{self, Head, Kind, LARGE, PINNED, TAGGED};
use crate::format::segment::{Entry, HEADER, Header};
use crate::format::{ALIGN, align};
use crate::index::{Place, Slot};

/// Most bytes that one write gathers.
const GATHER: usize = 4 << 20;

/// What a put does where there is an object already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The first writer wins.
    #[default]
    Keep,
    /// The last writer wins.
    Replace,
    /// Replaces an object without a note; one with a note stays.
    ReplaceUntagged,
}

/// An object on its way into the log.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) head: Head,
    /// Empty if the body has a file of its own.
    pub(crate) body: Bytes,
    pub(crate) project: [u8; 32],
    pub(crate) existing: Existing,
    /// A record that has the tag but is of another key, or damaged: no reason to keep it.
    pub(crate) seen: Option<Place>,
}

/// Work for [`Volume::append`].
#[derive(Debug)]
pub(crate) enum Work {
    /// Stores an object.
    Put(Box<Put>),
    /// Removes, pins or unpins one.
    Mark(Box<Head>),
    /// Writes a record that is at `from` once more.
    Copy {
        /// Where it is.
        from: Place,
        /// Its head.
        head: Box<Head>,
        /// Its body, empty if that has a file of its own.
        body: Bytes,
    },
}

impl Work {
    fn head(&self) -> &Head {
        match self {
            Self::Put(put) => &put.head,
            Self::Mark(head) | Self::Copy { head, .. } => head,
        }
    }

    fn body(&self) -> &[u8] {
        match self {
            Self::Put(put) => &put.body,
            Self::Copy { body, .. } => body,
            Self::Mark(_) => &[],
        }
    }

    /// About as many bytes as it takes in the log.
    pub(crate) fn bytes(&self) -> u64 {
        let head = self.head();
        let rest = 8 * head.names.len() + 4 * head.blocks.len() + head.note.len();
        (self.body().len() + rest + record::FIXED + 512) as u64
    }
}

/// How work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It is in the log and the index.
    Written,
    /// A put found an object that stays.
    Exists,
    /// There is nothing to remove, pin, unpin or copy any more.
    Missing,
}

/// The end of the log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(super) open: Option<Open>,
    /// Full segments whose records or footers are not durable yet, oldest first.
    pub(super) closing: Vec<Open>,
    /// The next segment, made ahead.
    pub(super) spare: Option<Arc<Segment>>,
    pub(super) next_id: u32,
    /// fsyncs that failed in a row.
    pub(super) failures: u32,
}

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) segment: Arc<Segment>,
    /// Where the next record goes.
    pub(super) tail: u64,
    /// Up to where it is durable.
    pub(super) synced: u64,
    pub(super) entries: Vec<Entry>,
    /// Bytes of records and of the files that they name.
    pub(super) weight: u64,
    pub(super) unsynced: Vec<Unsynced>,
    pub(super) newest: u64,
}

/// What was published and is not durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsynced {
    /// The object, or the removal, which the index does not hold.
    pub(super) slot: Slot,
    pub(super) removal: bool,
    /// What it took the place of.
    pub(super) before: Option<Slot>,
}

/// Records that are written together.
#[derive(Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    staged: Vec<Staged>,
    tags: HashSet<u64>,
}

#[derive(Debug)]
struct Staged {
    /// Number of the work.
    number: usize,
    entry: Entry,
    large: Option<Large>,
    copied: Option<Place>,
    time: u64,
}

impl Volume {
    /// Writes works to the log in their order and publishes them; the next [`Volume::sync`] makes them
    /// durable, or takes them back. Gives an outcome for each.
    pub(crate) fn append(&self, works: &[Work]) -> Vec<Result<Done, Error>> {
        let mut log = lock(&self.log);
        let mut outcomes: Vec<Result<Done, Error>> = Vec::with_capacity(works.len());
        let mut group = Group::default();
        let mut bytes = Vec::new();
        if log.failures >= super::sync::FAILURES {
            let reason = self.trouble().unwrap_or_else(|| "its disk fails".into());
            let refuse = || Error::Unusable {
                reason: reason.clone(),
            };
            return works.iter().map(|_| Err(refuse())).collect();
        }
        for (number, work) in works.iter().enumerate() {
            if group.bytes.len() >= GATHER || group.tags.contains(&work.head().tag) {
                self.write_group(&mut log, &mut group, &mut outcomes);
            }
            // Until the group is written.
            outcomes.push(Ok(Done::Written));
            let decided = self.decide(work).and_then(|go| match go {
                Ok(flags) => {
                    self.stage(
                        &mut log,
                        &mut group,
                        work,
                        number,
                        flags,
                        &mut bytes,
                        &mut outcomes,
                    )?;
                    Ok(Done::Written)
                }
                Err(done) => Ok(done),
            });
            if !matches!(decided, Ok(Done::Written)) {
                outcomes[number] = decided;
            }
        }
        self.write_group(&mut log, &mut group, &mut outcomes);
        outcomes
    }

    /// Whether a work is to be written, and with which flags, by what the index says now.
    fn decide(&self, work: &Work) -> Result<Result<u8, Done>, Error> {
        let head = work.head();
        let there = self.index.get(head.tag);
        Ok(match work {
            Work::Put(put) => {
                if self.generations.of(&put.project) != head.generation {
                    return Err(Error::Cleaned);
                }
                let keeps = there.is_some_and(|slot| {
                    put.seen != Some(slot.place)
                        && match put.existing {
                            Existing::Keep => true,
                            Existing::Replace => false,
                            Existing::ReplaceUntagged => slot.flags() & TAGGED != 0,
                        }
                });
                if keeps {
                    Err(Done::Exists)
                } else {
                    Ok(head.flags)
                }
            }
            Work::Mark(_) if there.is_some() || self.may_return(head.tag) => Ok(head.flags),
            Work::Mark(_) => Err(Done::Missing),
            Work::Copy { from, .. } => match there {
                // Pins may have changed since the record was written.
                Some(slot) if slot.place == *from => Ok(slot.flags()),
                _ => Err(Done::Missing),
            },
        })
    }

    /// Adds a work to the group, in a segment where there is room for it.
    #[expect(clippy::too_many_arguments, reason = "the state of one loop")]
    fn stage(
        &self,
        log: &mut Log,
        group: &mut Group,
        work: &Work,
        number: usize,
        flags: u8,
        bytes: &mut Vec<u8>,
        outcomes: &mut [Result<Done, Error>],
    ) -> Result<(), Error> {
        let head = work.head();
        let large = (head.flags & LARGE != 0).then_some(Large {
            file: head.file,
            bytes: head.length,
        });
        let weight = large.map_or(0, |large| large.bytes);
        loop {
            let open = self.ensure_open(log)?;
            bytes.clear();
            if flags == head.flags {
                head.write(open.segment.header.generation, bytes);
            } else {
                let mut head = head.clone();
                head.flags = flags;
                head.write(open.segment.header.generation, bytes);
            }
            let size = align((bytes.len() + work.body().len()) as u64, ALIGN);
            let at = open.tail + group.bytes.len() as u64;
            let full = at + size > open.segment.header.size
                || (weight > 0 && open.weight + weight > self.grain());
            if full && (at > HEADER) {
                self.write_group(log, group, outcomes);
                self.roll(log);
                continue;
            }
            let start = group.bytes.len();
            group.bytes.extend_from_slice(bytes);
            group.bytes.extend_from_slice(work.body());
            record::pad(&mut group.bytes, start);
            open.weight += weight + size;
            group.tags.insert(head.tag);
            group.staged.push(Staged {
                number,
                entry: Entry {
                    tag: head.tag,
                    offset: (at / ALIGN) as u32,
                    size: (size / ALIGN) as u32,
                    kind: head.kind,
                    flags,
                    pages: large.map_or(0, |large| large.bytes.div_ceil(4096) as u32),
                    file: head.file,
                },
                large,
                copied: match work {
                    Work::Copy { from, .. } => Some(*from),
                    _ => None,
                },
                time: head.time,
            });
            return Ok(());
        }
    }

    /// Writes what was gathered and publishes it.
    fn write_group(&self, log: &mut Log, group: &mut Group, outcomes: &mut [Result<Done, Error>]) {
        let Group { bytes, staged, .. } = std::mem::take(group);
        let Some(open) = log.open.as_mut().filter(|_| !staged.is_empty()) else {
            return;
        };
        let (segment, start) = (Arc::clone(&open.segment), open.tail);
        let path = self.path(&segment.path);
        let written = segment.file.write_at(&bytes, start);
        if let Err(error) = self.note(written.map_err(Error::io(&path, "write"))) {
            // What is behind the tail now is never looked at: the footer says where records end.
            self.roll(log);
            for one in &staged {
                outcomes[one.number] = Err(error.again());
            }
            return;
        }
        open.tail = start + bytes.len() as u64;
        for one in staged {
            let number = one.number;
            if !self.publish(log, segment.header.id, one) {
                outcomes[number] = Ok(Done::Missing);
            }
        }
    }

    /// Puts a written record into the index.
    fn publish(&self, log: &mut Log, segment: u32, staged: Staged) -> bool {
        let Staged { entry, large, .. } = staged;
        let place = Place {
            segment,
            offset: entry.offset,
        };
        let mut slot = Slot::new(entry.tag, place, entry.size, entry.flags, self.epoch());
        let mut before = None;
        let mut found = true;
        match (entry.kind, staged.copied) {
            (Kind::Object, None) => {
                if let Some(large) = large {
                    lock(&self.larges).insert(place, large);
                    self.large_bytes.fetch_add(large.bytes, Ordering::Relaxed);
                }
                before = self.index.put(slot);
                if let Some(before) = &before {
                    self.release(before);
                }
                if entry.flags & PINNED != 0 {
                    self.count_pinned(&slot, true);
                }
                self.counters.stored.add(1);
                self.counters.stored_bytes.add(entry.weight());
            }
            (Kind::Object, Some(from)) => {
                if let Some(large) = large {
                    lock(&self.larges).insert(place, large);
                }
                found = self.index.change(entry.tag, |there| {
                    if there.place == from {
                        before = Some(*there);
                        (slot.last, slot.hold) = (there.last, there.hold);
                        *there = slot;
                    }
                }) && before.is_some();
                if large.is_some() {
                    lock(&self.larges).remove(if found { &from } else { &place });
                }
            }
            (Kind::Removal, _) => {
                let gone = self.index.remove_if(entry.tag, |_| true);
                found = gone.is_some();
                if let Some(gone) = &gone {
                    self.release(gone);
                }
                before = gone;
                self.note_removal(entry.tag, place);
            }
            (Kind::Pin | Kind::Unpin, _) => {
                let pin = entry.kind == Kind::Pin;
                let mut changed = None;
                found = self.index.change(entry.tag, |there| {
                    if (there.flags() & PINNED != 0) != pin {
                        there.set_flag(PINNED, pin);
                        changed = Some(*there);
                    }
                });
                if let Some(changed) = changed {
                    self.count_pinned(&changed, pin);
                }
            }
        }
        let mut written = entry.weight();
        if staged.copied.is_some() {
            // The files of copies are where they were.
            written -= entry.large_bytes();
        }
        self.advance(written);
        if let Some(open) = &mut log.open {
            open.entries.push(entry);
            open.newest = open.newest.max(staged.time);
            open.segment
                .newest
                .fetch_max(staged.time, Ordering::Relaxed);
            if found && matches!(entry.kind, Kind::Object | Kind::Removal) {
                open.unsynced.push(Unsynced {
                    slot,
                    removal: entry.kind == Kind::Removal,
                    before,
                });
            }
        }
        found
    }

    /// The segment that is written to; makes one if there is none.
    fn ensure_open<'a>(&self, log: &'a mut Log) -> Result<&'a mut Open, Error> {
        if log.open.is_none() {
            let segment = match log.spare.take() {
                Some(spare) => spare,
                None => {
                    let id = log.next_id;
                    log.next_id += 1;
                    self.note(self.make_segment(id))?
                }
            };
            self.add_segment(&segment);
            log.open = Some(Open {
                tail: HEADER,
                synced: HEADER,
                entries: Vec::new(),
                weight: 0,
                unsynced: Vec::new(),
                newest: segment.header.time,
                segment,
            });
        }
        // It was set above.
        log.open.as_mut().ok_or(Error::Interrupted)
    }

    /// Makes a segment: all its room, its header and its name are there before it is used.
    pub(super) fn make_segment(&self, id: u32) -> Result<Arc<Segment>, Error> {
        let path = segment::path(id);
        let full = self.path(&path);
        let header = Header {
            id,
            generation: self.number(),
            time: self.clock.now(),
            size: self.segment_bytes,
        };
        let made = || {
            let file = self.disk.create(&path)?;
            file.allocate(0, header.size)?;
            file.write_at(&header.to_bytes(), 0)?;
            self.disk.sync_folder("segments", Flush::SegmentName)?;
            Ok(file)
        };
        match made() {
            Ok(file) => Ok(Arc::new(Segment::new(header, file, header.size))),
            Err(error) => {
                // It holds nothing; if it stays, recovery finds it empty.
                let _ = self.disk.unlink(&path);
                Err(Error::io(&full, "make")(error))
            }
        }
    }

    /// Closes the open segment; it is sealed by the next sync.
    pub(super) fn roll(&self, log: &mut Log) {
        if let Some(open) = log.open.take() {
            open.segment.newest.store(open.newest, Ordering::Relaxed);
            *lock(&open.segment.memory) = Some(Arc::new(open.entries.clone()));
            log.closing.push(open);
        }
    }

    /// Whether work of so many bytes needs a segment that is not there yet.
    pub(crate) fn needs_segment(&self, bytes: u64) -> bool {
        let log = lock(&self.log);
        let left = log
            .open
            .as_ref()
            .map_or(0, |open| open.segment.header.size.saturating_sub(open.tail));
        log.spare.is_none() && bytes > left
    }

    /// What the segment holds, also while it is open.
    pub(crate) fn entries(&self, segment: &Segment) -> std::io::Result<Arc<Vec<Entry>>> {
        {
            let log = lock(&self.log);
            if let Some(open) = &log.open
                && open.segment.header.id == segment.header.id
            {
                return Ok(Arc::new(open.entries.clone()));
            }
        }
        segment.entries()
    }
}
