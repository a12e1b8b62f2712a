//! The artifact store: bytes by key, published whole or not at all. It knows no HTTP.
//!
//! `FORMAT.md` beside this crate says what lies on the disk, what survives what, and why.

mod audit;
mod buffers;
mod clock;
mod counters;
mod disk;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod index;
mod key;
mod object;
mod scratch;
mod settings;
mod store;
mod tool;
mod upload;
mod volume;

pub use audit::Finding;
pub use counters::Counts;
pub use error::Error;
pub use format::record::Writer;
pub use key::{KEY_LIMIT, Key, Kind, Parts};
pub use object::{Info, Object, Reader};
pub use scratch::Scratch;
pub use settings::{Durability, Settings};
pub use store::{Status, Store, Usage};
pub use tool::{Offline, Problem, Row, Stat};
pub use upload::{Begun, OBJECT_LIMIT, Outcome, TEXT_LIMIT, Terms, Upload};
pub use volume::Existing;

/// The folder that a volume makes where it is put.
pub(crate) const FOLDER: &str = "larder-store";

/// Runs file system work on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Interrupted))
}

#[cfg(test)]
mod tests;
