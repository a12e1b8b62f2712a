//! Storing an object.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use twox_hash::xxhash3_128;

use crate::format::BLOCK;
use crate::format::record::{DIGEST, ENTRY, Head, Kind, LARGE, NAMES, NAMES_LIMIT, PINNED, TAGGED};
use crate::index::Place;
use crate::key::Key;
use crate::store::Shelf;
use crate::volume::{Done, Existing, LargeBody, Put, Work};
use crate::{Error, Writer, blocking};

/// Most bytes of an object in the store: 2 GiB.
pub const OBJECT_LIMIT: u64 = 2 << 30;
/// Most bytes of a note, a subject and a request id.
pub const TEXT_LIMIT: usize = 1024;
/// Bytes that are gathered before they are written to a file of its own.
const CHUNK: usize = 4 * BLOCK;

/// What an upload has to keep to, and what is kept with the object.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Most bytes; [`OBJECT_LIMIT`] holds as well.
    pub limit: u64,
    /// Exact number of bytes, if known.
    pub length: Option<u64>,
    /// Their SHA-256, if declared; it is checked before the object becomes visible.
    pub sha256: Option<[u8; 32]>,
    /// What to do where there is an object already.
    pub existing: Existing,
    /// Keys of objects that this one names, of the same account and project: it is served only while all of them are there.
    pub names: Vec<Key>,
    /// Not to be evicted while pinned objects keep to their share.
    pub pinned: bool,
    /// A note of the caller's. [`Existing::ReplaceUntagged`] leaves an object with one alone.
    pub note: Vec<u8>,
    /// Who stores it.
    pub writer: Writer,
}

/// What [`crate::Store::put`] found.
#[derive(Debug)]
pub enum Begun {
    /// There is an object of this key, and it stays: nothing to do.
    Exists,
    /// The bytes may come.
    Upload(Box<Upload>),
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is stored.
    Stored,
    /// Another upload of the same key was faster; its object is there.
    Exists,
}

/// An upload on its way. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    shelf: Arc<Shelf>,
    limit: u64,
    length: Option<u64>,
    existing: Existing,
    project: [u8; 32],
    seen: Option<Place>,
    head: Head,
    sha256: Option<Sha256>,
    /// Of what was written to the file of its own.
    content: Content,
    received: u64,
    /// Not written yet: the end of what was received.
    gathered: Vec<u8>,
    /// CRC of the blocks that were written.
    blocks: Vec<u32>,
    /// There is one once more came than the log takes.
    large: Option<LargeBody>,
}

/// The hash of a content, streamed only if it is long.
#[derive(Default)]
struct Content(Option<Box<xxhash3_128::Hasher>>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content")
    }
}

impl Content {
    fn add(&mut self, bytes: &[u8]) {
        let hasher = self
            .0
            .get_or_insert_with(|| Box::new(xxhash3_128::Hasher::new()));
        hasher.write(bytes);
    }

    fn finish(self, rest: &[u8]) -> [u8; 16] {
        let hash = match self.0 {
            None => xxhash3_128::Hasher::oneshot(rest),
            Some(mut hasher) => {
                hasher.write(rest);
                hasher.finish_128()
            }
        };
        hash.to_be_bytes()
    }
}

/// Looks whether terms can be kept to.
pub(crate) fn check(key: &Key, terms: &Terms) -> Result<u64, Error> {
    key.check()?;
    let limit = terms.limit.min(OBJECT_LIMIT);
    if terms.length.is_some_and(|length| length > limit) {
        return Err(Error::TooLarge { limit });
    }
    let writer = &terms.writer;
    for (what, length, limit) in [
        ("the note", terms.note.len(), TEXT_LIMIT),
        ("the subject", writer.subject.len(), TEXT_LIMIT),
        ("the request id", writer.request.len(), TEXT_LIMIT),
        ("the list of names", terms.names.len(), NAMES_LIMIT),
    ] {
        if length > limit {
            return Err(Error::TooLong {
                what,
                length,
                limit,
            });
        }
    }
    let ours = |name: &Key| name.account == key.account && name.project == key.project;
    if !terms.names.iter().all(ours) {
        return Err(Error::ForeignName);
    }
    Ok(limit)
}

impl Upload {
    pub(crate) fn new(
        shelf: Arc<Shelf>,
        key: &Key,
        terms: Terms,
        limit: u64,
        (tag, generation): (u64, u64),
        seen: Option<Place>,
    ) -> Self {
        let tag_of = |key: &Key| crate::key::tag(&key.hash(), generation);
        let mut flags = 0;
        for (flag, set) in [
            (ENTRY, key.kind.is_entry()),
            (TAGGED, !terms.note.is_empty()),
            (PINNED, terms.pinned),
            (DIGEST, terms.sha256.is_some()),
            (NAMES, !terms.names.is_empty()),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut head = Head::mark(Kind::Object, key, tag, generation, shelf.now());
        head.flags = flags;
        head.names = terms.names.iter().map(tag_of).collect();
        (head.writer, head.note, head.sha256) = (terms.writer, terms.note, terms.sha256);
        Self {
            shelf,
            limit,
            length: terms.length,
            existing: terms.existing,
            project: key.project_hash(),
            seen,
            sha256: head.sha256.map(|_| Sha256::new()),
            head,
            content: Content::default(),
            received: 0,
            gathered: Vec::new(),
            blocks: Vec::new(),
            large: None,
        }
    }

    /// Computes the SHA-256 as the bytes come, for one that is declared at the end. To be called
    /// before the first of them.
    pub fn compute_sha256(&mut self) {
        self.sha256 = Some(Sha256::new());
    }

    /// Declares the SHA-256 of all bytes: it is checked and kept. Only after
    /// [`Upload::compute_sha256`]; what cannot be checked is not kept.
    pub fn declare_sha256(&mut self, sha256: [u8; 32]) {
        if self.sha256.is_some() {
            self.head.sha256 = Some(sha256);
            self.head.flags |= DIGEST;
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// More came than the terms allow, or the disk failed: the upload is over.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        if self.received > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        if let Some(declared) = self.length.filter(|length| self.received > *length) {
            return Err(Error::Length {
                declared,
                received: self.received,
            });
        }
        if let Some(hash) = &mut self.sha256 {
            hash.update(bytes);
        }
        if self.gathered.is_empty() {
            let rest = self.length.unwrap_or(0).saturating_sub(self.received);
            let rest = rest.min(self.shelf.large_from());
            self.gathered.reserve(bytes.len() + rest as usize);
        }
        self.gathered.extend_from_slice(bytes);
        let most = if self.large.is_some() {
            CHUNK
        } else {
            self.shelf.large_from() as usize
        };
        if self.gathered.len() >= most {
            self.write_out(false).await?;
        }
        Ok(())
    }

    /// Writes what was gathered to a file of its own; all of it, or whole blocks.
    async fn write_out(&mut self, all: bool) -> Result<(), Error> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let keep = if all { 0 } else { gathered.len() % BLOCK };
        self.gathered = gathered.split_off(gathered.len() - keep);
        self.content.add(&gathered);
        let large = self.large.take();
        let (volume, length, limit) = (self.shelf.volume()?, self.length, self.limit);
        let (large, blocks) = blocking(move || {
            let begin = || LargeBody::begin(volume, length, limit);
            let mut large = large.map_or_else(begin, Ok)?;
            large.write(&gathered)?;
            Ok((large, crate::format::record::block_table(&gathered)))
        })
        .await?;
        self.large = Some(large);
        self.blocks.extend(blocks);
        Ok(())
    }

    /// Ends the upload: checks length and digest, then makes the object visible, as durable as the
    /// settings say.
    ///
    /// # Errors
    ///
    /// The bytes are not those that were declared, the project was cleaned since the upload began,
    /// or the disk failed. Nothing is left behind.
    pub async fn finish(mut self: Box<Self>) -> Result<Outcome, Error> {
        let received = self.received;
        if let Some(declared) = self.length.filter(|length| received != *length) {
            return Err(Error::Length { declared, received });
        }
        if let (Some(declared), Some(hash)) = (self.head.sha256, self.sha256.take()) {
            let computed = hash.finalize().into();
            if declared != computed {
                return Err(Error::Digest {
                    declared,
                    received: computed,
                });
            }
        }
        if self.large.is_some() && !self.gathered.is_empty() {
            self.write_out(true).await?;
        }
        let Self {
            shelf,
            mut head,
            content,
            gathered,
            blocks,
            large,
            existing,
            project,
            seen,
            ..
        } = *self;
        head.length = received;
        head.content = content.finish(&gathered);
        let body = if let Some(large) = large {
            head.file = blocking(move || large.publish()).await?;
            head.flags |= LARGE;
            head.blocks = blocks;
            Bytes::new()
        } else {
            head.blocks = crate::format::record::block_table(&gathered);
            Bytes::from(gathered)
        };
        let (file, volume) = (head.file, shelf.volume()?);
        let put = Put {
            head,
            body,
            project,
            existing,
            seen,
        };
        // Once submitted, it is published whatever becomes of this future.
        let outcome = shelf.submit(Work::Put(Box::new(put))).await;
        let unknown = matches!(outcome, Err(Error::Interrupted));
        if file != 0 && !unknown && !matches!(outcome, Ok(Done::Written)) {
            volume.forget_large(file);
        }
        match outcome? {
            Done::Written => Ok(Outcome::Stored),
            Done::Exists | Done::Missing => Ok(Outcome::Exists),
        }
    }
}
