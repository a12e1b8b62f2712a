//! Debian packages, from apt's sources to verified `.deb` files on disk; rootless, without apt.
//!
//! ```no_run
//! # fn main() -> packages::Result<()> {
//! # let request: packages::Request = unimplemented!();
//! use packages::{Cache, Lock, Options, Silent, Sources};
//! let (cache, options) = (Cache::of_user()?, Options::default());
//! let sources = Sources::discover(&[])?;
//! let progress: std::sync::Arc<dyn packages::Progress> = std::sync::Arc::new(Silent);
//! let lock = packages::resolve(&request, &sources, &cache, &progress, &options)?;
//! lock.save("configs/packages.lock".as_ref())?;
//! let packages: Vec<_> = lock.system().chain(lock.kernel("6.18-cloud")).collect();
//! let paths = packages::fetch(&packages, &sources, &cache, &progress, &options)?;
//! # Ok(()) }
//! ```
//!
//! The way of a byte: InRelease is verified by gpgv, the index by the hash in InRelease, a package
//! by the hash in the index. A lock keeps the last of these, so a build trusts nothing but it.

mod apt_files;
mod cache;
mod date;
pub mod deb822;
mod diff;
mod digest;
mod download;
mod error;
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

use std::path::PathBuf;
use std::sync::Arc;

pub use crate::cache::Cache;
pub use crate::diff::Diff;
pub use crate::digest::Digest;
pub use crate::error::{Error, Result};
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

/// Resolves a request against the newest indexes of its suites.
pub fn resolve(
    request: &Request,
    sources: &Sources,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<Lock> {
    request.check()?;
    let suites = suites::load(request, sources, cache, progress, options)?;
    progress.step("resolving");
    update::make(&suites, request, None, progress.as_ref())
}

/// Brings a lock up to date as far as `refresh` says; gives it back as it was if that changes
/// no package. Refuses mirrors that are older than the lock.
pub fn update(
    previous: &Lock,
    refresh: Refresh<'_>,
    request: &Request,
    sources: &Sources,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<Lock> {
    request.check()?;
    let suites = suites::load(request, sources, cache, progress, options)?;
    progress.step("resolving");
    update::make(
        &suites,
        request,
        Some((previous, refresh)),
        progress.as_ref(),
    )
}

/// Downloads packages of a lock; the paths are in the order of `packages`.
///
/// What is in the cache costs one look at its size. A package that no source has any more gives
/// [`Error::Gone`], after all others were downloaded: the caller may resolve anew.
pub fn fetch(
    packages: &[&Package],
    sources: &Sources,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    let items = packages
        .iter()
        .map(|p| download::Item {
            name: p.name.clone(),
            version: p.version.clone(),
            urls: sources.candidates(&p.suite, &p.path),
            size: p.size,
            digest: p.sha256,
            extension: "deb",
        })
        .collect();
    download::fetch(items, cache, progress, options)
}

/// What the archive has that is newer than a lock.
#[derive(Clone, Debug)]
pub struct News {
    /// What an update of everything would change.
    pub packages: Diff,
    /// The kernels of the request.
    pub kernels: Vec<KernelNews>,
}

/// Looks for newer packages and kernels; changes nothing.
pub fn news(
    lock: &Lock,
    request: &Request,
    sources: &Sources,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<News> {
    request.check()?;
    let suites = suites::load(request, sources, cache, progress, options)?;
    let everything = Some((lock, Refresh::Everything));
    let new = update::make(&suites, request, everything, &Silent)?;
    let universe = suites.universe()?;
    let look_up = |(name, kernel): (&String, &KernelRequest)| {
        KernelNews::look_up(&universe, lock, name, kernel, &request.architecture)
    };
    Ok(News {
        packages: lock.diff(&new),
        kernels: request.kernels.iter().map(look_up).collect(),
    })
}

/// What [`fetch_or_renew`] brings.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The lock that the files are of.
    pub lock: Lock,
    /// Packages of the roles asked for, in the order of the lock, with their files.
    pub files: Vec<(Package, PathBuf)>,
    /// What differs from the lock that was given, because packages were gone.
    pub renewed: Option<Diff>,
}

/// Downloads the packages of some roles; those that are gone from every source are resolved anew,
/// with what they then need.
///
/// The caller tells the user about [`Fetched::renewed`] and saves the new lock. With `locked` a
/// package that is gone is an error, as it is when the index still names the same file.
#[allow(clippy::too_many_arguments)] // each is a different thing, and all callers have all of them
pub fn fetch_or_renew(
    lock: &Lock,
    roles: &[Role],
    request: &Request,
    locked: bool,
    sources: &Sources,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<Fetched> {
    let mut current = lock.clone();
    loop {
        let wanted: Vec<&Package> = current
            .packages
            .iter()
            .filter(|p| roles.contains(&p.role))
            .collect();
        let error = match fetch(&wanted, sources, cache, progress, options) {
            Ok(paths) => {
                let files = wanted.into_iter().cloned().zip(paths).collect();
                let renewed = (current != *lock).then(|| lock.diff(&current));
                return Ok(Fetched {
                    lock: current,
                    files,
                    renewed,
                });
            }
            Err(error) => error,
        };
        let Error::Gone { packages } = &error else {
            return Err(error);
        };
        if locked {
            return Err(error);
        }
        progress.warning(&error.to_string());
        let names: Vec<String> = packages.iter().map(|(name, _)| name.clone()).collect();
        let refresh = Refresh::Only(&names);
        let next = update(
            &current, refresh, request, sources, cache, progress, options,
        )?;
        let same = |(name, version): &(String, String)| {
            next.packages
                .iter()
                .any(|p| p.name == *name && p.version == *version)
        };
        if packages.iter().any(same) {
            return Err(error);
        }
        current = next;
    }
}
