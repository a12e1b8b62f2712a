//! Debian packages, from apt's sources to verified `.deb` files on disk; rootless, without apt.
//!
//! ```no_run
//! # fn main() -> packages::Result<()> {
//! # let request: packages::Request = unimplemented!();
//! use packages::{Cache, Fetcher, Silent};
//! let mirrors = Vec::new(); // of --mirror; else apt's configuration counts
//! let fetcher = Fetcher::new(mirrors, Cache::of_user()?, std::sync::Arc::new(Silent));
//! let lock = fetcher.resolve(&request)?;
//! lock.save("configs/packages.lock".as_ref())?;
//! let packages: Vec<_> = lock.system().chain(lock.kernel("6.18-cloud")).collect();
//! let paths = fetcher.fetch(&packages)?;
//! # Ok(()) }
//! ```
//!
//! The way of a byte: InRelease is verified by gpgv, the index by the hash in InRelease, a package
//! by the hash in the index. A lock keeps the last of these, so a build trusts nothing but it.

mod apt_files;
mod cache;
pub mod date;
pub mod deb822;
mod diff;
mod digest;
mod download;
mod error;
mod fetcher;
mod http;
pub mod index;
mod kernel;
pub mod lock;
mod options;
mod progress;
mod proxy;
pub mod relation;
pub mod release;
mod request;
mod resolve;
pub mod sources;
mod suites;
mod transfer;
mod update;
mod url;
mod verify;
pub mod version;

pub use crate::cache::Cache;
pub use crate::diff::{Diff, stem};
pub use crate::digest::Digest;
pub use crate::error::{Error, Result};
pub use crate::fetcher::{Fetched, Fetcher, News};
pub use crate::http::Timeouts;
pub use crate::kernel::KernelNews;
pub use crate::lock::{Lock, LockedSuite, Package, Role};
pub use crate::options::Options;
pub use crate::progress::{Progress, Silent};
pub use crate::proxy::Proxies;
pub use crate::request::{Flavour, KernelRequest, Request};
pub use crate::sources::{Archive, Kind, Sources};
pub use crate::update::Refresh;
pub use crate::url::Url;
