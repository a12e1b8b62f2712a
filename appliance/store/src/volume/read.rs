//! Finding a record and checking it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;

use super::{Segment, Volume};
use crate::buffers::{self, Buffer};
use crate::disk::DiskFile;
use crate::format::BLOCK;
use crate::format::record::{ENTRY, FIXED, Frame, Head, Kind, LARGE, NAMES, Parsed};
use crate::format::segment::Entry;
use crate::index::{Place, Slot};
use crate::key::Key;

/// Records up to this length are read and checked whole before a byte of them leaves.
pub(crate) const WHOLE: u64 = 320 * 1024;
/// What is read of longer ones at first: mostly head and block table.
const FIRST: u64 = 16 * 1024;

/// A record that was found and whose head checks.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) head: Arc<Head>,
    pub(crate) place: Place,
    pub(crate) body: Body,
}

/// Where the body is.
#[derive(Debug)]
pub(crate) enum Body {
    /// Here, checked.
    Here(Bytes),
    /// In a file, from this offset on.
    There(Source, u64),
}

/// What a body is read from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A segment, which stays readable while it is held.
    Segment(Arc<Segment>),
    /// A file of its own.
    File(Arc<dyn DiskFile>),
}

impl Source {
    pub(crate) fn file(&self) -> &dyn DiskFile {
        match self {
            Self::Segment(segment) => &*segment.file,
            Self::File(file) => &**file,
        }
    }
}

/// How a look at a record ended, when there is none.
#[derive(Debug)]
pub(crate) enum Miss {
    /// It is not in memory: to be asked again by a thread that may wait.
    Wait,
    /// Its bytes are not what was written.
    Damaged,
    /// The disk failed.
    Failed(io::Error),
    /// Its segment is gone.
    Gone,
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock => Self::Wait,
            ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Failed(error),
        }
    }
}

impl Volume {
    /// The record at a place. `wait`: whether the disk may be waited for.
    pub(crate) fn record(&self, place: Place, bytes: u64, wait: bool) -> Result<Record, Miss> {
        let segment = self.segment(place.segment).ok_or(Miss::Gone)?;
        self.record_in(&segment, place, bytes, wait)
    }

    /// The record at a place of a segment.
    pub(crate) fn record_in(
        &self,
        segment: &Arc<Segment>,
        place: Place,
        bytes: u64,
        wait: bool,
    ) -> Result<Record, Miss> {
        let read = |from: u64, length: usize| -> Result<Vec<u8>, Miss> {
            let mut buffer = vec![0; length];
            let file = &segment.file;
            let read = if wait {
                file.read_at(&mut buffer, from)?
            } else {
                file.read_ready(&mut buffer, from)?
            };
            if read < length {
                return Err(Miss::Damaged);
            }
            Ok(buffer)
        };
        let first = if bytes <= WHOLE { bytes } else { FIRST };
        let mut buffer = read(place.byte(), first as usize)?;
        let generation = segment.header.generation;
        let parsed = match Head::parse(&buffer, generation) {
            Parsed::Short(needed) if needed as u64 <= bytes => {
                buffer = read(place.byte(), needed)?;
                Head::parse(&buffer, generation)
            }
            parsed => parsed,
        };
        let Parsed::Head(head, length) = parsed else {
            return Err(Miss::Damaged);
        };
        let end = length as u64 + head.inline();
        if end > bytes {
            return Err(Miss::Damaged);
        }
        let body = if head.flags & LARGE != 0 {
            let opened = match wait {
                true => self.open_large(head.file),
                // If that takes no disk.
                false => self.disk.open_ready(&super::large::path(head.file)),
            };
            let file = match opened {
                Err(_) if !wait => return Err(Miss::Wait),
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(Miss::Damaged),
                opened => opened?,
            };
            Body::There(Source::File(file), 0)
        } else if buffer.len() as u64 >= end {
            let body = Bytes::from(buffer).slice(length..end as usize);
            if !head.fits(&body) {
                return Err(Miss::Damaged);
            }
            Body::Here(body)
        } else {
            Body::There(
                Source::Segment(Arc::clone(segment)),
                place.byte() + length as u64,
            )
        };
        Ok(Record {
            head: Arc::new(*head),
            place,
            body,
        })
    }

    /// The object of a key, marked as used, if it is all in memory, right, short and simple; otherwise
    /// [`Volume::find`] tells.
    pub(crate) fn find_ready(
        &self,
        key: &Key,
        tag: u64,
        generation: u64,
    ) -> Option<(Frame, Place)> {
        // An entry may have expired, which its use must not hide.
        let simple =
            |slot: &Slot| slot.flags() & (LARGE | NAMES | ENTRY) == 0 && slot.bytes() <= WHOLE;
        let slot = self.index.touch_if(tag, self.epoch(), simple)?;
        if self.hot.wants(slot.place) {
            return None;
        }
        let segment = self.segment(slot.place.segment)?;
        let mut buffer = Buffer::new(slot.bytes() as usize);
        let read = segment.file.read_ready(buffer.bytes(), slot.place.byte());
        match read {
            Ok(read) if read < slot.bytes() as usize => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => {
                log::error!(
                    "{}: cannot read: {error}",
                    self.place_path(slot.place).display()
                );
                self.counters.read_errors.add(1);
                self.drop_damaged(&slot);
                return None;
            }
        }
        let bytes = buffer.part(0..slot.bytes() as usize);
        let frame = Frame::of(bytes, segment.header.generation, key, tag, generation)?;
        Some((frame, slot.place))
    }

    /// The object of a key; marks it as used.
    pub(crate) fn find(
        &self,
        key: &Key,
        tag: u64,
        generation: u64,
        wait: bool,
    ) -> Result<Option<Record>, Miss> {
        // Once more if its segment went meanwhile: it may have been written again.
        for _ in 0..3 {
            let Some(slot) = self.index.touch(tag, self.epoch()) else {
                return Ok(None);
            };
            if slot.flags() & ENTRY != 0 && self.is_expired(slot.last) {
                if self.drop_slot(&slot) {
                    self.counters.expired.add(1);
                }
                return Ok(None);
            }
            let read = match self.hot.get(slot.place) {
                Some((head, body)) => Ok(Record {
                    head,
                    place: slot.place,
                    body: Body::Here(body),
                }),
                None => self
                    .record(slot.place, slot.bytes(), wait)
                    .inspect(|record| {
                        if let Body::Here(body) = &record.body {
                            self.hot.offer(slot.place, &record.head, body);
                        }
                    }),
            };
            match read {
                Ok(record) => {
                    let head = &record.head;
                    let ours = head.kind == Kind::Object
                        && head.tag == tag
                        && head.generation == generation
                        && key.is(&head.key);
                    return Ok(ours.then_some(record));
                }
                Err(Miss::Wait) => return Err(Miss::Wait),
                Err(Miss::Gone) => {
                    // Still there: eviction is about to drop it.
                    if self
                        .index
                        .get(tag)
                        .is_some_and(|now| now.place == slot.place)
                    {
                        return Ok(None);
                    }
                }
                Err(Miss::Damaged) => {
                    self.drop_damaged(&slot);
                    return Ok(None);
                }
                Err(Miss::Failed(error)) => {
                    self.counters.read_errors.add(1);
                    self.drop_damaged(&slot);
                    return Err(Miss::Failed(error));
                }
            }
        }
        Ok(None)
    }

    /// Drops an object that cannot be read, so that the next writer of its key stores it anew.
    pub(crate) fn drop_damaged(&self, slot: &Slot) {
        if self.drop_slot(slot) {
            self.counters.damaged.add(1);
        }
    }

    /// Takes a slot out of the index, if it is still that one.
    pub(crate) fn drop_slot(&self, slot: &Slot) -> bool {
        let gone = self
            .index
            .remove_if(slot.tag, |there| there.place == slot.place);
        if let Some(gone) = &gone {
            self.release(gone);
        }
        gone.is_some()
    }

    /// Drops the object whose record is at a place.
    pub(crate) fn drop_place(&self, tag: u64, place: Place) {
        if let Some(slot) = self.index.get(tag).filter(|slot| slot.place == place) {
            self.drop_damaged(&slot);
        }
    }

    /// Path of the segment of a place, for messages.
    pub(crate) fn place_path(&self, place: Place) -> std::path::PathBuf {
        self.path(&super::segment::path(place.segment))
    }

    /// The head of a record, read without its body.
    pub(crate) fn head_of(&self, segment: &Segment, entry: &Entry) -> Result<Head, Miss> {
        let at = u64::from(entry.offset) * crate::format::ALIGN;
        let bytes = u64::from(entry.size) * crate::format::ALIGN;
        let read = |length: u64| -> Result<Vec<u8>, Miss> {
            Ok(crate::disk::read_exact(
                &*segment.file,
                at,
                length as usize,
            )?)
        };
        let buffer = read(bytes.min(4096.max(FIXED as u64)))?;
        let generation = segment.header.generation;
        let parsed = match Head::parse(&buffer, generation) {
            Parsed::Short(needed) if needed as u64 <= bytes => {
                Head::parse(&read(needed as u64)?, generation)
            }
            parsed => parsed,
        };
        match parsed {
            Parsed::Head(head, _) => Ok(*head),
            _ => Err(Miss::Damaged),
        }
    }
}

/// Reads a part of a body and checks it: `range` is widened to blocks and cut again. `wait`: whether the
/// disk may be waited for; else `Err(Wait)` if it had to be. `Err(Damaged)` if a block is not what was
/// written.
pub(crate) fn read_part(
    head: &Head,
    source: &Source,
    offset: u64,
    range: std::ops::Range<u64>,
    wait: bool,
) -> Result<Bytes, Miss> {
    let block = BLOCK as u64;
    let first = range.start / block;
    let start = first * block;
    let end = (range.end.next_multiple_of(block)).min(head.length);
    let length = (end - start) as usize;
    let cut = (range.start - start) as usize..(range.end - start) as usize;
    let file = source.file();
    let read = |buffer: &mut [u8]| -> Result<(), Miss> {
        let read = match wait {
            true => file.read_at(buffer, offset + start)?,
            false => file.read_ready(buffer, offset + start)?,
        };
        if read < buffer.len() || !head.checks(first as usize, buffer) {
            return Err(Miss::Damaged);
        }
        Ok(())
    };
    if length <= buffers::LENGTH {
        let mut buffer = Buffer::new(length);
        read(buffer.bytes())?;
        return Ok(buffer.part(cut));
    }
    let mut bytes = vec![0; length];
    read(&mut bytes)?;
    Ok(Bytes::from(bytes).slice(cut))
}
