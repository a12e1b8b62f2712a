//! The public way in: everything that needs the archive or the cache.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::cache::Cache;
use crate::diff::Diff;
use crate::download::{self, Item};
use crate::error::{Error, Result};
use crate::kernel::KernelNews;
use crate::lock::{Lock, Package, Role};
use crate::options::Options;
use crate::progress::{Progress, Silent};
use crate::request::{KernelRequest, Request};
use crate::sources::Sources;
use crate::suites::{self, Suites};
use crate::update::{self, Refresh};

/// Resolves and downloads; blocks, with a small runtime of its own inside.
pub struct Fetcher {
    mirrors: Vec<String>,
    sources: OnceLock<Sources>,
    /// Where downloads are kept.
    pub cache: Cache,
    /// Who is told about progress and warnings.
    pub progress: Arc<dyn Progress>,
    /// How to download.
    pub options: Options,
}

/// What [`Fetcher::fetch_or_renew`] brings.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The lock that the files are of.
    pub lock: Lock,
    /// Packages of the roles asked for, in the order of the lock, with their files.
    pub files: Vec<(Package, PathBuf)>,
    /// What differs from the lock that was given, because packages were gone.
    pub renewed: Option<Diff>,
}

/// What the archive has that is newer than a lock.
#[derive(Clone, Debug)]
pub struct News {
    /// What an update of everything would change.
    pub packages: Diff,
    /// The kernels of the request.
    pub kernels: Vec<KernelNews>,
}

impl Fetcher {
    /// Uses `--mirror`s if there are some, else apt's configuration of this host; both are looked
    /// at only when something is not in the cache.
    pub fn new(mirrors: Vec<String>, cache: Cache, progress: Arc<dyn Progress>) -> Self {
        let options = Options::default();
        Self {
            mirrors,
            sources: OnceLock::new(),
            cache,
            progress,
            options,
        }
    }

    /// Uses these sources.
    pub fn with_sources(sources: Sources, cache: Cache, progress: Arc<dyn Progress>) -> Self {
        let fetcher = Self::new(Vec::new(), cache, progress);
        let _ = fetcher.sources.set(sources);
        fetcher
    }

    /// Where packages come from.
    pub fn sources(&self) -> Result<&Sources> {
        if let Some(sources) = self.sources.get() {
            return Ok(sources);
        }
        let found = Sources::discover(&self.mirrors)?;
        Ok(self.sources.get_or_init(|| found))
    }

    fn load(&self, request: &Request) -> Result<Suites> {
        request.check()?;
        let suites = suites::load(
            request,
            self.sources()?,
            &self.cache,
            &self.progress,
            &self.options,
        )?;
        self.progress.step("resolving");
        Ok(suites)
    }

    /// Resolves a request against the newest indexes of its suites.
    pub fn resolve(&self, request: &Request) -> Result<Lock> {
        update::make(&self.load(request)?, request, None, self.progress.as_ref())
    }

    /// Brings a lock up to date as far as `refresh` says; gives it back as it was if that changes
    /// no package. Refuses mirrors that are older than the lock.
    pub fn update(&self, previous: &Lock, refresh: Refresh<'_>, request: &Request) -> Result<Lock> {
        let previous = Some((previous, refresh));
        update::make(
            &self.load(request)?,
            request,
            previous,
            self.progress.as_ref(),
        )
    }

    /// Looks for newer packages and kernels; changes nothing.
    pub fn news(&self, lock: &Lock, request: &Request) -> Result<News> {
        let suites = self.load(request)?;
        let new = update::make(&suites, request, Some((lock, Refresh::Everything)), &Silent)?;
        let universe = suites.universe()?;
        let look_up = |(name, kernel): (&String, &KernelRequest)| {
            KernelNews::look_up(&universe, lock, name, kernel, &request.architecture)
        };
        let kernels = request.kernels.iter().map(look_up).collect();
        Ok(News {
            packages: lock.diff(&new),
            kernels,
        })
    }

    /// Downloads packages of a lock; the paths are in the order of `packages`.
    ///
    /// What is in the cache costs one look at its size, and needs neither network nor sources. A
    /// package that no source has any more gives [`Error::Gone`], after all others were downloaded.
    pub fn fetch(&self, packages: &[&Package]) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for p in packages {
            if self
                .cache
                .find(&p.sha256, p.size, "deb", self.options.rehash)?
                .is_none()
            {
                missing.push(p);
            }
        }
        if !missing.is_empty() {
            let sources = self.sources()?;
            let item = |p: &&&Package| Item {
                name: p.name.clone(),
                version: p.version.clone(),
                urls: sources.candidates(&p.suite, &p.path),
                size: p.size,
                digest: p.sha256,
                extension: "deb",
            };
            let items = missing.iter().map(item).collect();
            download::fetch(items, &self.cache, &self.progress, &self.options)?;
        }
        Ok(packages
            .iter()
            .map(|p| self.cache.path(&p.sha256, "deb"))
            .collect())
    }

    /// Downloads the packages of some roles; those that are gone from every source are resolved
    /// anew, with what they then need.
    ///
    /// The caller tells the user about [`Fetched::renewed`] and saves the new lock. With `locked` a
    /// package that is gone is an error, as it is when the index still names the same file.
    pub fn fetch_or_renew(
        &self,
        lock: &Lock,
        roles: &[Role],
        request: &Request,
        locked: bool,
    ) -> Result<Fetched> {
        let mut current = lock.clone();
        loop {
            let wanted: Vec<&Package> = current
                .packages
                .iter()
                .filter(|p| roles.contains(&p.role))
                .collect();
            let error = match self.fetch(&wanted) {
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
            self.progress.warning(&error.to_string());
            let names: Vec<String> = packages.iter().map(|(name, _)| name.clone()).collect();
            let next = self.update(&current, Refresh::Only(&names), request)?;
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
}
