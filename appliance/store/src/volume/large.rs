//! Bodies in files of their own.

use std::sync::Arc;

use super::Volume;
use crate::Error;
use crate::disk::{DiskFile, Flush};

/// Most bytes that are preallocated at a time when the length is not known.
const STEP: u64 = 64 << 20;

/// Path of a file.
pub(crate) fn path(number: u64) -> String {
    format!("large/{number:016x}")
}

/// The number in the name of a file.
pub(super) fn number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name, 16).ok()?;
    (name == format!("{number:016x}")).then_some(number)
}

/// A body that is being written; it has no name yet, so nothing is left of one that is dropped.
#[derive(Debug)]
pub(crate) struct LargeBody {
    volume: Arc<Volume>,
    file: Arc<dyn DiskFile>,
    allocated: u64,
    length: u64,
}

impl LargeBody {
    /// Begins a body of a length that may be known, at most `limit`.
    pub(crate) fn begin(
        volume: Arc<Volume>,
        length: Option<u64>,
        limit: u64,
    ) -> Result<Self, Error> {
        let first = length.unwrap_or_else(|| volume.step().min(limit));
        volume.make_room(first)?;
        let path = volume.path("large");
        let made = || {
            let file = volume.disk.nameless("large")?;
            file.allocate(0, first)?;
            Ok(file)
        };
        let file = volume.note(made().map_err(Error::io(&path, "make a file in")))?;
        Ok(Self {
            volume,
            file,
            allocated: first,
            length: 0,
        })
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let path = self.volume.path("large");
        let end = self.length + bytes.len() as u64;
        if end > self.allocated {
            let step = self.volume.step().max(end - self.allocated);
            self.volume.make_room(step)?;
            let allocated = self.file.allocate(self.allocated, step);
            self.volume
                .note(allocated.map_err(Error::io(&path, "allocate in")))?;
            self.allocated += step;
        }
        let written = self.file.write_at(bytes, self.length);
        self.volume
            .note(written.map_err(Error::io(&path, "write in")))?;
        self.length = end;
        Ok(())
    }

    /// Makes the body durable under a name; its number.
    pub(crate) fn publish(self) -> Result<u64, Error> {
        let path_of = |number| self.volume.path(&path(number));
        let number = self.volume.number();
        let published = || {
            if self.allocated != self.length {
                self.file.set_length(self.length)?;
            }
            self.file.sync(Flush::Body)?;
            self.volume.disk.link(&*self.file, &path(number))?;
            self.volume.disk.sync_folder("large", Flush::BodyName)
        };
        self.volume
            .note(published().map_err(Error::io(&path_of(number), "publish")))?;
        Ok(number)
    }
}

impl Volume {
    fn step(&self) -> u64 {
        STEP.min(self.segment_bytes)
    }

    /// Opens the file of a large object.
    pub(crate) fn open_large(&self, number: u64) -> std::io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&path(number))
    }

    /// Removes a file whose record never came.
    pub(crate) fn forget_large(&self, number: u64) {
        // Otherwise the next start does.
        let _ = self.disk.unlink(&path(number));
    }
}
