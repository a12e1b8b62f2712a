//! The artifact store: bytes by key, published whole or not at all. It knows no HTTP.
//!
//! # What it promises
//!
//! - An object becomes visible at once and whole, after its length and its declared digest were
//!   checked. The first writer of a key wins; later ones learn that it is there.
//! - When [`Upload::finish`] returns, the object survives a power cut.
//! - Nothing that fails is half-written: a full, read-only or dying disk is a typed [`Error`].
//! - A folder that is missing or cannot be written leaves the store there, saying so
//!   ([`Store::status`]): reads miss, writes fail, [`Store::check`] looks again.
//! - A damaged object (length or magic wrong) is a miss, and the next writer of its key replaces
//!   it.
//!
//! # On disk
//!
//! One file an object below the folder given to [`Store::open`]; see `object.rs` for its header:
//!
//! ```text
//! objects/.lock             held while a process uses the store
//! objects/abc/<61 hex>      first 3 and other 61 hex digits of SHA-256 of the key
//! tmp/larder-upload-<n>     being written; swept at the start
//! ```
//!
//! Writing: temporary file, fdatasync, hard link to the final name (fails if there is one), fsync
//! of the folder, unlink of the temporary name.

mod error;
mod files;
mod key;
mod object;
mod reader;
mod upload;

pub use error::Error;
pub use key::{Key, Kind};
pub use reader::{Object, Reader};
pub use upload::{Begun, Outcome, Terms, Upload};

use std::path::Path;
use std::sync::Arc;

/// The store; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    files: Arc<files::Files>,
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Reads and writes work.
    Ready,
    /// The last write failed for a reason that the disk gave; reads work.
    WritesFail(String),
    /// Nothing works: reads miss.
    Unusable(String),
}

impl Store {
    /// Opens the store below `folder`, which must exist: takes its lock, removes what interrupted
    /// uploads left behind. A folder that cannot be used is no error here: [`Store::status`] says
    /// so and [`Store::check`] tries again.
    pub async fn open(folder: &Path) -> Self {
        let store = Self {
            files: Arc::new(files::Files::new(folder)),
        };
        store.check().await;
        store
    }

    /// How the store is, as far as known; takes no time.
    #[must_use]
    pub fn status(&self) -> Status {
        self.files.status()
    }

    /// Looks whether what failed works by now: opens an unusable store again, writes to one whose
    /// last write failed. Cheap when all is well.
    pub async fn check(&self) -> Status {
        let files = Arc::clone(&self.files);
        // A panic there would be a bug; the status then stays as it was.
        let _ = blocking(move || {
            files.check();
            Ok(())
        })
        .await;
        self.status()
    }

    /// Starts to store an object.
    ///
    /// # Errors
    ///
    /// The declared length is above the limit, or the store cannot be used.
    pub async fn put(&self, key: &Key, terms: Terms) -> Result<Begun, Error> {
        upload::begin(Arc::clone(&self.files), key, terms).await
    }

    /// Looks an object up for reading. `None`: there is none.
    ///
    /// # Errors
    ///
    /// The disk failed, or the store cannot be used.
    pub async fn get(&self, key: &Key) -> Result<Option<Object>, Error> {
        let (files, place) = (Arc::clone(&self.files), key.place());
        blocking(move || files.open_object(&place)).await
    }

    /// Whether there is an object.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn head(&self, key: &Key) -> Result<bool, Error> {
        Ok(self.get(key).await?.is_some())
    }

    /// Removes an object; `false` if there was none. Readers that have it open go on reading.
    ///
    /// # Errors
    ///
    /// The disk failed, or the store cannot be used.
    pub async fn remove(&self, key: &Key) -> Result<bool, Error> {
        let (files, place) = (Arc::clone(&self.files), key.place());
        blocking(move || files.remove(&place)).await
    }
}

/// Runs file system work on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Interrupted))
}

/// Fuzz target: no bytes may panic a parser of this crate.
pub fn fuzz(bytes: &[u8]) {
    let _ = object::Header::parse(bytes, bytes.len() as u64);
}

#[cfg(test)]
mod tests;
