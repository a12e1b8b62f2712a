//! Reading an object.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::object::{self, Header};
use crate::{Error, blocking};

/// Bytes that one read asks for.
const CHUNK: u64 = 256 * 1024;

/// An object that was found; it stays readable if it is removed meanwhile.
#[derive(Debug)]
pub struct Object {
    file: Arc<File>,
    path: PathBuf,
    header: Header,
    /// Its first bytes, which came with the header.
    start: Bytes,
}

impl Object {
    pub(crate) fn new(file: File, path: PathBuf, header: Header, start: Bytes) -> Self {
        Self {
            file: Arc::new(file),
            path,
            header,
            start,
        }
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
    pub fn len(&self) -> u64 {
        self.header.length
    }

    /// A number that is another one whenever the key was stored anew.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.header.version
    }

    /// SHA-256 of the object, if the uploader declared it (it was checked then).
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.header.sha256
    }

    /// Reads a part of the object; what of `range` lies beyond its end is left out.
    #[must_use]
    pub fn read(self, range: Range<u64>) -> Reader {
        let end = range.end.min(self.header.length);
        Reader {
            at: range.start.min(end),
            end,
            object: self,
        }
    }
}

/// A part of an object, chunk by chunk.
#[derive(Debug)]
pub struct Reader {
    object: Object,
    at: u64,
    end: u64,
}

impl Reader {
    /// Bytes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.at
    }

    /// The next bytes if they are in memory already: no waiting, no thread.
    pub fn next_ready(&mut self) -> Option<Bytes> {
        let start = &self.object.start;
        let from = usize::try_from(self.at).ok()?;
        let to = usize::try_from(self.end).map_or(start.len(), |end| end.min(start.len()));
        if from >= to {
            return None;
        }
        let chunk = start.slice(from..to);
        self.at = to as u64;
        Some(chunk)
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    ///
    /// The disk failed. What was handed out before is right, the rest is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(chunk) = self.next_ready() {
            return Ok(Some(chunk));
        }
        if self.at == self.end {
            return Ok(None);
        }
        let (file, path) = (Arc::clone(&self.object.file), self.object.path.clone());
        let (at, length) = (self.at, self.remaining().min(CHUNK));
        let chunk = blocking(move || {
            // At most CHUNK.
            let mut chunk = vec![0; length as usize];
            file.read_exact_at(&mut chunk, object::LENGTH as u64 + at)
                .map_err(Error::io(&path, "read"))?;
            Ok(chunk)
        })
        .await?;
        self.at += length;
        Ok(Some(chunk.into()))
    }
}
