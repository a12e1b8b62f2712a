//! Downloads: several files at once, resumed, verified, into the cache.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cache::{Cache, Opened, Part, available};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::http::{Client, Connections};
use crate::options::Options;
use crate::progress::Progress;
use crate::transfer::{Outcome, Watch, from_source};
use crate::url::Url;

/// A file to have in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Name of the package.
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where it may be, best first.
    pub(crate) urls: Vec<Url>,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// Extension of its name in the cache.
    pub(crate) extension: &'static str,
}

/// Common to the workers of one [`fetch`].
struct Shared {
    cache: Cache,
    options: Options,
    client: Arc<Client>,
    progress: Arc<dyn Progress>,
    queue: Mutex<VecDeque<Item>>,
    gone: Mutex<Vec<(String, String)>>,
    done: AtomicU64,
    total: u64,
}

/// Counts the bytes of one file into the whole.
struct Meter<'s> {
    shared: &'s Shared,
    name: &'s str,
}

impl Watch for Meter<'_> {
    fn advance(&mut self, bytes: u64) {
        self.shared.advance(bytes, self.name);
    }
    fn take_back(&mut self, bytes: u64) {
        self.shared.done.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn advance(&self, by: u64, name: &str) {
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        self.progress.bytes(done, self.total, name);
    }
}

/// A small runtime for one call of the public API.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("download")
        .enable_all()
        .build()
        .map_err(|e| Error::Setup {
            what: "the runtime for downloads",
            reason: e.to_string(),
        })
}

/// Brings every item into the cache; the paths are in the order of the items. Nothing is hashed
/// and no network is used for what is there already.
pub(crate) fn fetch(
    items: Vec<Item>,
    cache: &Cache,
    progress: &Arc<dyn Progress>,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::with_capacity(items.len());
    let mut missing: Vec<Item> = Vec::new();
    for item in items {
        paths.push(cache.path(&item.digest, item.extension));
        let found = cache.find(&item.digest, item.size, item.extension, options.rehash)?;
        // The same file may be asked for twice, as part of two kernels.
        let doubled = missing.iter().any(|other| other.digest == item.digest);
        if found.is_none() && !doubled {
            missing.push(item);
        }
    }
    if missing.is_empty() {
        return Ok(paths);
    }
    let total = missing
        .iter()
        .fold(0_u64, |sum, item| sum.saturating_add(item.size));
    let free = available(cache.root());
    if free < total {
        let path = cache.root().to_owned();
        return Err(Error::DiskFull {
            path,
            needed: total,
            available: free,
        });
    }
    // Big ones first: the last connection to finish then has little left.
    missing.sort_by_key(|item| std::cmp::Reverse(item.size));
    let workers = options.connections.clamp(1, missing.len());
    let shared = Arc::new(Shared {
        cache: cache.clone(),
        options: options.clone(),
        client: options.client(),
        progress: Arc::clone(progress),
        queue: Mutex::new(missing.into()),
        gone: Mutex::default(),
        done: AtomicU64::new(0),
        total,
    });
    runtime()?.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..workers {
            tasks.spawn(worker(Arc::clone(&shared)));
        }
        // The first error stops the others, whose parts stay for the next run.
        while let Some(result) = tasks.join_next().await {
            result.map_err(|e| Error::Setup {
                what: "a download task",
                reason: e.to_string(),
            })??;
        }
        Ok::<(), Error>(())
    })?;
    let mut gone = std::mem::take(&mut *lock(&shared.gone));
    if gone.is_empty() {
        return Ok(paths);
    }
    gone.sort();
    Err(Error::Gone { packages: gone })
}

/// A poisoned lock only means that another task panicked, which its join reports.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn worker(shared: Arc<Shared>) -> Result<()> {
    let mut connections = Connections::new(Arc::clone(&shared.client));
    loop {
        let next = lock(&shared.queue).pop_front();
        let Some(item) = next else { return Ok(()) };
        match fetch_one(&shared, &mut connections, &item).await {
            Ok(()) => {}
            Err(Error::Gone { packages }) => lock(&shared.gone).extend(packages),
            Err(error) => return Err(error),
        }
    }
}

/// Runs what blocks (locks, hashing of a part, fsync) beside the workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Setup {
            what: "a download task",
            reason: e.to_string(),
        }),
    }
}

/// One file, from the first source that has it.
async fn fetch_one(shared: &Shared, connections: &mut Connections, item: &Item) -> Result<()> {
    let target = shared.cache.path(&item.digest, item.extension);
    let mut told = false;
    let mut part = loop {
        let (path, size) = (target.clone(), item.size);
        match blocking(move || Part::open(&path, size)).await? {
            Opened::Part(part) => break part,
            Opened::Whole => {
                shared.advance(item.size, &item.name);
                return Ok(());
            }
            Opened::Busy => {
                if !std::mem::replace(&mut told, true) {
                    let name = &item.name;
                    shared
                        .progress
                        .warning(&format!("{name}: another process downloads it: waiting"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    shared.advance(part.len(), &item.name);
    let mut failure = None;
    for url in &item.urls {
        let watch = &mut Meter {
            shared,
            name: &item.name,
        };
        match from_source(connections, item, url, &mut part, &shared.options, watch).await {
            Ok(()) => return blocking(move || part.finish(&target)).await,
            Err(Outcome::NotThere) => {}
            Err(Outcome::Source(error)) => failure = Some(error),
            Err(Outcome::Stop(error)) => return Err(error),
        }
    }
    if part.len() == 0 {
        part.discard();
    }
    // A source that answered wrongly or not at all is worth more words than one without the file.
    Err(failure.unwrap_or_else(|| Error::Gone {
        packages: vec![(item.name.clone(), item.version.clone())],
    }))
}
