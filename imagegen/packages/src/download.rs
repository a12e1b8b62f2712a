//! Downloads: several files at once, resumed, verified, into the cache.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header;

use crate::cache::{Cache, Part, available};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::http::{Client, Connections, Failure, Timeouts};
use crate::progress::Progress;
use crate::proxy::Proxies;
use crate::url::Url;

/// How to download.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at once.
    pub connections: usize,
    /// Attempts without progress before a source counts as unreachable.
    pub attempts: u32,
    /// Pause before the second attempt; doubles with each, up to 5 s.
    pub pause: Duration,
    /// Time-outs of each step.
    pub timeouts: Timeouts,
    /// Proxies; `None`: discovered when the first connection is made.
    pub proxies: Option<Proxies>,
    /// Whether files of the cache are hashed before they are used; otherwise name and size are
    /// proof enough.
    pub rehash: bool,
    /// Whether an index past its Valid-Until is an error instead of a warning.
    pub strict_dates: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 4,
            attempts: 5,
            pause: Duration::from_millis(250),
            timeouts: Timeouts::default(),
            proxies: None,
            rehash: false,
            strict_dates: false,
        }
    }
}

impl Options {
    pub(crate) fn client(&self) -> Arc<Client> {
        let proxies = self.proxies.clone().unwrap_or_else(Proxies::discover);
        Arc::new(Client::new(self.timeouts, proxies))
    }

    /// Pause after this many failures in a row.
    fn pause_after(&self, failures: u32) -> Duration {
        self.pause
            .saturating_mul(1 << failures.saturating_sub(1).min(16))
            .min(Duration::from_secs(5))
    }
}

/// A file to have in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// For people: name and version.
    pub(crate) name: String,
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
    queue: Mutex<VecDeque<(usize, Item)>>,
    gone: Mutex<Vec<String>>,
    done: AtomicU64,
    total: u64,
}

impl Shared {
    fn advance(&self, by: u64, name: &str) {
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        self.progress.bytes(done, self.total, name);
    }

    fn take_back(&self, by: u64) {
        self.done.fetch_sub(by, Ordering::Relaxed);
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
    let mut missing = Vec::new();
    for (number, item) in items.into_iter().enumerate() {
        paths.push(cache.path(&item.digest, item.extension));
        let found = cache.find(&item.digest, item.size, item.extension, options.rehash)?;
        // The same file may be asked for twice, as part of two kernels.
        let doubled = missing
            .iter()
            .any(|(_, other): &(usize, Item)| other.digest == item.digest);
        if found.is_none() && !doubled {
            missing.push((number, item));
        }
    }
    if missing.is_empty() {
        return Ok(paths);
    }
    let total = missing.iter().map(|(_, item)| item.size).sum();
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
    missing.sort_by_key(|(_, item)| std::cmp::Reverse(item.size));
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
        Ok(())
    })?;
    let mut gone = std::mem::take(&mut *lock(&shared.gone));
    if gone.is_empty() {
        return Ok(paths);
    }
    gone.sort();
    Err(Error::Gone { names: gone })
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
        let Some((_, item)) = next else { return Ok(()) };
        match fetch_one(&shared, &mut connections, &item).await {
            Ok(()) => {}
            Err(Error::Gone { names }) => lock(&shared.gone).extend(names),
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
    let (path, size) = (target.clone(), item.size);
    let Some(mut part) = blocking(move || Part::open(&path, size)).await? else {
        shared.advance(item.size, &item.name);
        return Ok(());
    };
    shared.advance(part.len(), &item.name);
    let mut failure = None;
    for url in &item.urls {
        match from_source(shared, connections, item, url, &mut part).await {
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
        names: vec![item.name.clone()],
    }))
}

/// Why one source did not give a file.
enum Outcome {
    /// It has none.
    NotThere,
    /// It is broken or out of reach: the next may do.
    Source(Error),
    /// Nothing else will help.
    Stop(Error),
}

/// Downloads from one URL until the file is whole and right.
async fn from_source(
    shared: &Shared,
    connections: &mut Connections,
    item: &Item,
    url: &Url,
    part: &mut Part,
) -> Result<(), Outcome> {
    let mut failures = 0;
    loop {
        let before = part.len();
        let result = if part.len() == item.size {
            Ok(url.clone())
        } else {
            transfer(shared, connections, item, url, part).await
        };
        match result {
            Ok(from) => {
                let found = part.digest();
                if part.len() == item.size && found == item.digest {
                    return Ok(());
                }
                let stale = part.resumed > 0;
                let len = part.len();
                shared.take_back(len);
                part.reset().map_err(Outcome::Stop)?;
                // What an earlier run left may have been wrong: once more from the beginning.
                if stale {
                    continue;
                }
                let url = from.to_string();
                return Err(Outcome::Source(if len == item.size {
                    Error::Mismatch {
                        url,
                        found,
                        wanted: item.digest,
                    }
                } else {
                    Error::WrongSize {
                        url,
                        found: len,
                        wanted: item.size,
                    }
                }));
            }
            Err(Failure::Status(404 | 410)) => return Err(Outcome::NotThere),
            Err(Failure::Status(status)) => {
                return Err(Outcome::Source(Error::Status {
                    url: url.to_string(),
                    status,
                }));
            }
            Err(Failure::Fatal(error)) => return Err(Outcome::Stop(error)),
            Err(Failure::Transient(reason)) => {
                failures = if part.len() > before { 1 } else { failures + 1 };
                if failures >= shared.options.attempts {
                    return Err(Outcome::Source(Error::Unreachable {
                        url: url.to_string(),
                        reason,
                        attempts: failures,
                    }));
                }
                tokio::time::sleep(shared.options.pause_after(failures)).await;
            }
        }
    }
}

/// One request, its body appended to the part. `Ok` with the final URL at the end of the body.
async fn transfer(
    shared: &Shared,
    connections: &mut Connections,
    item: &Item,
    url: &Url,
    part: &mut Part,
) -> Result<Url, Failure> {
    let mut response = connections.get(url, part.len()).await?;
    let continues = response.status == 206 && {
        let range = response
            .headers
            .get(header::CONTENT_RANGE)
            .and_then(|r| r.to_str().ok());
        range.is_some_and(|r| r.starts_with(&format!("bytes {}-", part.len())))
    };
    if !continues && part.len() > 0 {
        // The server cannot resume, or thinks that there is no such range: from the beginning.
        shared.take_back(part.len());
        part.reset().map_err(Failure::Fatal)?;
        if response.status != 200 {
            return Err(Failure::Transient(format!(
                "the server answered {} to a range",
                response.status
            )));
        }
    }
    let announced = response
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    let mut here = 0;
    while let Some(bytes) = response.chunk().await? {
        let remaining = item.size - part.len();
        if bytes.len() as u64 > remaining {
            // Longer than the file can be: count what is known, but keep none of it.
            let found = announced.map_or(item.size + 1, |a| a.max(item.size + 1));
            shared.take_back(part.len());
            part.reset().map_err(Failure::Fatal)?;
            return Err(Failure::Fatal(Error::WrongSize {
                url: response.url.to_string(),
                found,
                wanted: item.size,
            }));
        }
        part.write(&bytes, remaining).map_err(Failure::Fatal)?;
        here += bytes.len() as u64;
        shared.advance(bytes.len() as u64, &item.name);
    }
    // A body without a length ends wherever the connection does.
    let cut = announced.is_none() && part.len() < item.size && here > 0;
    let from = response.url.clone();
    connections.keep(response);
    if cut {
        Err(Failure::Transient("the connection ended early".to_owned()))
    } else {
        Ok(from)
    }
}

/// A small file into memory, from the first of several URLs that has it.
pub(crate) async fn fetch_small(
    connections: &mut Connections,
    url: &Url,
    limit: u64,
    options: &Options,
) -> Result<Option<Vec<u8>>> {
    let mut failures = 0;
    loop {
        match small(connections, url, limit).await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(Failure::Status(404 | 410)) => return Ok(None),
            Err(Failure::Status(status)) => {
                return Err(Error::Status {
                    url: url.to_string(),
                    status,
                });
            }
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Transient(reason)) => {
                failures += 1;
                if failures >= options.attempts {
                    return Err(Error::Unreachable {
                        url: url.to_string(),
                        reason,
                        attempts: failures,
                    });
                }
                tokio::time::sleep(options.pause_after(failures)).await;
            }
        }
    }
}

async fn small(connections: &mut Connections, url: &Url, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut response = connections.get(url, 0).await?;
    let mut out = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        if (out.len() + bytes.len()) as u64 > limit {
            return Err(Failure::Fatal(Error::TooLarge {
                url: url.to_string(),
                limit,
            }));
        }
        out.extend_from_slice(&bytes);
    }
    connections.keep(response);
    Ok(out)
}
