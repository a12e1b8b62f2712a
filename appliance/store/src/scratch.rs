//! Bytes that wait on the disk to become part of an object: parts of an upload that came out of order.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::volume::Volume;
use crate::{Error, blocking};

/// Bytes that are gathered before they are written.
const CHUNK: usize = 256 * 1024;

/// A file without a name on the volume of a key. It takes room of the disk, for which objects are
/// evicted, and goes when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    volume: Arc<Volume>,
    file: Arc<dyn DiskFile>,
    /// Written to the file.
    written: u64,
    gathered: Vec<u8>,
}

impl Scratch {
    /// Makes an empty one, with room for `length` bytes.
    pub(crate) async fn new(volume: Arc<Volume>, length: u64) -> Result<Self, Error> {
        blocking(move || {
            volume.make_room(length)?;
            let path = volume.path("large");
            let file = volume.disk.nameless("large");
            let file = volume.note(file.map_err(Error::io(&path, "make a file in")))?;
            Ok(Self {
                volume,
                file,
                written: 0,
                gathered: Vec::new(),
            })
        })
        .await
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
    pub fn len(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let gathered = std::mem::take(&mut self.gathered);
        let length = gathered.len() as u64;
        let (volume, file, at) = (
            Arc::clone(&self.volume),
            Arc::clone(&self.file),
            self.written,
        );
        blocking(move || {
            let path = volume.path("large");
            let written = file.write_at(&gathered, at);
            volume.note(written.map_err(Error::io(&path, "write in")))
        })
        .await?;
        self.written += length;
        Ok(())
    }

    /// Reads from `offset` on, at most 256 KiB; nothing at the end.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn read(&mut self, offset: u64) -> Result<Bytes, Error> {
        if !self.gathered.is_empty() {
            self.flush().await?;
        }
        let length = self.written.saturating_sub(offset).min(CHUNK as u64);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (volume, file) = (Arc::clone(&self.volume), Arc::clone(&self.file));
        blocking(move || {
            let read = crate::disk::read_exact(&*file, offset, length as usize);
            let read = read.map_err(Error::io(&volume.path("large"), "read in"));
            volume.note(read).map(Bytes::from)
        })
        .await
    }
}
