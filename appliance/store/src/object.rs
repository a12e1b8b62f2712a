//! Reading an object.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::hex;
use crate::format::BLOCK;
use crate::format::record::{Frame, Head};
use crate::index::Place;
use crate::key::Parts;
use crate::volume::{Body, Miss, Record, Volume, read_part};
use crate::{Error, Writer, blocking};

/// Bytes that one read asks for: whole blocks.
const CHUNK: u64 = 4 * BLOCK as u64;
/// The same where nothing is waited for: what is read stays in the processor's cache until it is sent.
const READY: u64 = 2 * BLOCK as u64;

/// What is known of an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its key, in parts.
    pub key: Parts,
    /// Length in bytes.
    pub length: u64,
    /// When it was stored, ms since 1970.
    pub time: u64,
    /// Who stored it.
    pub writer: Writer,
    /// The uploader's own note.
    pub note: Vec<u8>,
    /// SHA-256, if the uploader declared it.
    pub sha256: Option<[u8; 32]>,
    /// Hash of the content.
    pub content: [u8; 16],
    /// Whether it is pinned.
    pub pinned: bool,
}

impl Info {
    pub(crate) fn new(head: &Head, pinned: bool) -> Self {
        Self {
            key: head.key.clone(),
            length: head.length,
            time: head.time,
            writer: head.writer.clone(),
            note: head.note.clone(),
            sha256: head.sha256,
            content: head.content,
            pinned,
        }
    }
}

/// An object that was found; it stays readable if it is removed or evicted meanwhile.
#[derive(Debug)]
pub struct Object {
    volume: Arc<Volume>,
    place: Place,
    content: Content,
}

/// What is known of an object, and its body.
#[derive(Debug)]
enum Content {
    /// All of it, in memory.
    Ready(Frame),
    /// It was taken apart; its body may be on the disk.
    Found(Arc<Head>, Body),
}

impl Object {
    pub(crate) fn new(volume: Arc<Volume>, record: Record) -> Self {
        Self {
            volume,
            place: record.place,
            content: Content::Found(record.head, record.body),
        }
    }

    pub(crate) fn ready(volume: Arc<Volume>, frame: Frame, place: Place) -> Self {
        Self {
            volume,
            place,
            content: Content::Ready(frame),
        }
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Ready(frame) => frame.length(),
            Content::Found(head, _) => head.length,
        }
    }

    /// Hash of the content, in hexadecimal: for an ETag. It was made when the object was stored.
    #[must_use]
    pub fn content(&self) -> String {
        match &self.content {
            Content::Ready(frame) => hex(frame.content()),
            Content::Found(head, _) => hex(&head.content),
        }
    }

    /// SHA-256 of the object, if the uploader declared it (it was checked then).
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        match &self.content {
            Content::Ready(frame) => frame.sha256(),
            Content::Found(head, _) => head.sha256,
        }
    }

    /// The uploader's own note.
    #[must_use]
    pub fn note(&self) -> &[u8] {
        match &self.content {
            Content::Ready(frame) => frame.note(),
            Content::Found(head, _) => &head.note,
        }
    }

    /// Who stored it.
    #[must_use]
    pub fn writer(&self) -> Writer {
        match &self.content {
            Content::Ready(frame) => frame.writer(),
            Content::Found(head, _) => head.writer.clone(),
        }
    }

    /// When it was stored, ms since 1970.
    #[must_use]
    pub fn time(&self) -> u64 {
        match &self.content {
            Content::Ready(frame) => frame.time(),
            Content::Found(head, _) => head.time,
        }
    }

    /// Reads a part of the object; what of `range` lies beyond its end is left out.
    #[must_use]
    pub fn read(self, range: Range<u64>) -> Reader {
        let end = range.end.min(self.len());
        let at = range.start.min(end);
        let source = match &self.content {
            Content::Ready(frame) => From::Memory(frame.body()),
            Content::Found(_, Body::Here(body)) => From::Memory(body.clone()),
            Content::Found(..) => From::Disk(Arc::new(self)),
        };
        Reader { at, end, source }
    }
}

/// A part of an object, chunk by chunk.
#[derive(Debug)]
pub struct Reader {
    source: From,
    at: u64,
    end: u64,
}

/// Where a reader has its bytes from.
#[derive(Debug)]
enum From {
    /// The whole body.
    Memory(Bytes),
    Disk(Arc<Object>),
}

impl Reader {
    /// Bytes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.at
    }

    /// The next bytes if they are in memory already: no waiting, no thread.
    pub fn next_ready(&mut self) -> Option<Bytes> {
        if self.at == self.end {
            return None;
        }
        match &self.source {
            // A body that is here is short.
            From::Memory(body) => {
                let chunk = body.slice(self.at as usize..self.end as usize);
                self.at = self.end;
                Some(chunk)
            }
            From::Disk(object) => {
                let Content::Found(head, Body::There(source, offset)) = &object.content else {
                    return None;
                };
                let to = self.next_end(READY);
                // Whatever else is wrong, reading for good will tell.
                let chunk = read_part(head, source, *offset, self.at..to, false).ok()?;
                self.at = to;
                Some(chunk)
            }
        }
    }

    /// Where the next piece ends: at a boundary of blocks, so that none is checked twice.
    fn next_end(&self, step: u64) -> u64 {
        ((self.at / step + 1) * step).min(self.end)
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    ///
    /// The disk failed, or the next bytes are not what was stored. What was handed out before is
    /// right, the rest is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(chunk) = self.next_ready() {
            return Ok(Some(chunk));
        }
        if self.at == self.end {
            return Ok(None);
        }
        let From::Disk(object) = &self.source else {
            return Ok(None);
        };
        let to = self.next_end(CHUNK);
        let (object, from) = (Arc::clone(object), self.at);
        let chunk = blocking(move || object.part(from..to)).await?;
        self.at = to;
        Ok(Some(chunk))
    }
}

impl Object {
    fn part(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let Content::Found(head, Body::There(source, offset)) = &self.content else {
            return Err(Error::Interrupted);
        };
        let start = range.start;
        read_part(head, source, *offset, range, true).map_err(|miss| {
            let path = self.volume.place_path(self.place);
            self.volume.drop_place(head.tag, self.place);
            match miss {
                Miss::Failed(source) => Error::io(&path, "read")(source),
                _ => Error::Damaged {
                    path,
                    offset: start,
                },
            }
        })
    }
}
