//! Reading of systemd's journal.
//!
//! [`Journal`] is what the shipper needs of a journal; [`Files`] is the real one, read through
//! libsystemd, which knows rotation, compression and every variant of the file format.

mod cursor;
mod entry;
mod files;
mod library;

use std::time::Duration;

pub use cursor::{Cursor, Id128};
pub use entry::{Entry, Stamp};
pub use files::{Files, Place};

/// What goes wrong while the journal is read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable libsystemd.
    #[error("cannot load libsystemd.so.0, which reads the journal: {0}; install libsystemd0")]
    Library(String),
    /// A call failed.
    #[error("{call} of the journal {place}: {source}")]
    Call {
        /// Name of the function.
        call: &'static str,
        /// Which journal.
        place: String,
        /// What the kernel or the library says.
        source: std::io::Error,
    },
}

/// A journal as a list of entries with a position, which is an entry, or before the first, or
/// after the last one.
///
/// A position is lost by a seek that is not followed by `next` or `previous`.
pub trait Journal {
    /// To before the first entry.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn seek_head(&mut self) -> Result<(), Error>;

    /// So that `next` comes to the entry of the cursor, or if that is gone, to the one after it.
    ///
    /// # Errors
    ///
    /// The journal cannot be read, or the cursor is none.
    fn seek_cursor(&mut self, cursor: &str) -> Result<(), Error>;

    /// So that `next` comes to the first entry of the boot at or after the monotonic time in µs.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn seek_monotonic(&mut self, boot: Id128, monotonic: u64) -> Result<(), Error>;

    /// The last entry of a boot: realtime minus monotonic time in µs, which is the best guess at
    /// the clock of that boot. `None`: there is no such entry. The position is lost.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn clock_of_boot(&mut self, boot: Id128) -> Result<Option<i64>, Error>;

    /// Goes to the next entry; `false`: there is none (yet), and the position stays.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn next(&mut self) -> Result<bool, Error>;

    /// Goes to the entry before; `false`: there is none.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn previous(&mut self) -> Result<bool, Error>;

    /// Whether the position is the entry of the cursor.
    ///
    /// # Errors
    ///
    /// The journal cannot be read, or the cursor is none.
    fn is_at(&mut self, cursor: &str) -> Result<bool, Error>;

    /// The cursor of the position.
    ///
    /// # Errors
    ///
    /// The journal cannot be read, or the position is no entry.
    fn cursor(&mut self) -> Result<String, Error>;

    /// Identity and times of the position.
    ///
    /// # Errors
    ///
    /// The journal cannot be read, or the position is no entry.
    fn stamp(&mut self) -> Result<Stamp, Error>;

    /// Reads the entry of the position into `entry`, whose content is replaced.
    ///
    /// # Errors
    ///
    /// The journal cannot be read, or the position is no entry.
    fn read(&mut self, entry: &mut Entry) -> Result<(), Error>;

    /// Waits until there may be new entries, at most for `patience`.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    fn wait(&mut self, patience: Duration) -> Result<(), Error>;
}
