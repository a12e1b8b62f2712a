//! The store: volumes side by side, each key on one of them.

mod shelf;
mod usage;
mod volumes;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

pub(crate) use shelf::Shelf;
pub use usage::Usage;

use crate::clock::{Clock, LONGEST_HOLD, SystemClock, minute};
use crate::disk::{Disk, Flush, RealDisk};
use crate::format::record::{Head, Kind, PINNED, TAGGED};
use crate::key::{Key, tag};
use crate::object::{Info, Object};
use crate::scratch::Scratch;
use crate::settings::Settings;
use crate::upload::{self, Begun, Terms, Upload};
use crate::volume::{Done, Existing, Generations, Members64, Miss, Record, Threads, Volume, Work};
use crate::{Error, blocking};

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Reads and writes work.
    Ready,
    /// Writes fail, at least for some keys, for a reason that the disk gave; reads work.
    WritesFail(String),
    /// Nothing works: reads miss.
    Unusable(String),
}

/// The store; clones share it. [`Store::close`] waits for a last sync and checkpoint; they happen also
/// when the last clone is dropped, on a thread that nobody waits for.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shelves: Vec<Arc<Shelf>>,
    names: Vec<String>,
    members: Members64,
    generations: Arc<Generations>,
    clock: Arc<dyn Clock>,
    /// Number of the list of volumes, once a volume is open.
    epoch: Mutex<Option<u64>>,
    threads: bool,
    /// Set for good by [`Store::close`].
    closed: AtomicBool,
}

/// Where a key is.
struct Way {
    shelf: Arc<Shelf>,
    tag: u64,
    generation: u64,
}

impl Store {
    /// Opens the store whose one volume is `folder`, with the default settings.
    pub async fn open(folder: &Path) -> Self {
        Self::open_with(Settings::new(vec![folder.into()])).await
    }

    /// Opens the store. A volume that cannot be used is no error here: [`Store::status`] says so,
    /// its keys miss, and [`Store::check`] tries again.
    pub async fn open_with(settings: Settings) -> Self {
        let disk = |path: &PathBuf| Arc::new(RealDisk::new(path)) as Arc<dyn Disk>;
        let disks = settings.volumes.iter().map(disk).collect();
        let store = Self::new(settings, disks, Arc::new(SystemClock), true);
        store.check().await;
        store
    }

    /// A store on these disks that is not open yet. `threads`: whether volumes have threads, or all
    /// is done by whoever asks.
    pub(crate) fn new(
        settings: Settings,
        disks: Vec<Arc<dyn Disk>>,
        clock: Arc<dyn Clock>,
        threads: bool,
    ) -> Self {
        let folders = settings.volumes.iter();
        let folders = folders.map(|path| path.to_string_lossy().into_owned());
        let names = match settings.names.len() == settings.volumes.len() {
            true => settings.names.clone(),
            false => folders.collect(),
        };
        let shelf = |(name, disk): (&String, Arc<dyn Disk>)| {
            Arc::new(Shelf {
                name: name.clone(),
                disk,
                settings: settings.clone(),
                clock: Arc::clone(&clock),
                threads: RwLock::new(Err("it was not opened yet".into())),
            })
        };
        let inner = Inner {
            shelves: names.iter().zip(disks).map(shelf).collect(),
            members: Members64::new(&names, ""),
            names,
            generations: Arc::default(),
            clock,
            epoch: Mutex::new(None),
            threads,
            closed: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// How the store is, as far as known; takes no time.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut usable = 0;
        let mut reasons = Vec::new();
        for shelf in &self.inner.shelves {
            match shelf.volume() {
                Ok(volume) => {
                    usable += 1;
                    reasons.extend(volume.trouble());
                }
                Err(Error::Unusable { reason }) => reasons.push(reason),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        match reasons.is_empty() {
            true => Status::Ready,
            false if usable > 0 => Status::WritesFail(reasons.join("; ")),
            false => Status::Unusable(reasons.join("; ")),
        }
    }

    /// Looks whether what failed works by now: opens volumes that are not open, writes to those whose
    /// last write failed. Cheap when all is well.
    pub async fn check(&self) -> Status {
        let inner = Arc::clone(&self.inner);
        // A panic there would be a bug; the status then stays as it was.
        let _ = blocking(move || {
            inner.check();
            Ok(())
        })
        .await;
        self.status()
    }

    /// Ends the store: what is stored is durable, a checkpoint is written, the volumes are free for
    /// another process. All that is asked of a clone afterwards fails.
    pub async fn close(self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        let shelves = self.inner.shelves.iter();
        let open: Vec<Arc<Threads>> = shelves.filter_map(|shelf| shelf.shut()).collect();
        // A panic there would be a bug; recovery repairs it.
        let _ = blocking(move || {
            open.iter().for_each(|threads| threads.stop());
            Ok(())
        })
        .await;
    }

    fn way(&self, key: &Key) -> Way {
        let generation = self.inner.generations.with(|| key.project_hash());
        let tag = tag(&key.hash(), generation);
        let owner = self.inner.members.owner(tag);
        Way {
            shelf: Arc::clone(&self.inner.shelves[owner]),
            tag,
            generation,
        }
    }

    /// The object of a key; one that names others only while they are there.
    async fn find(&self, key: &Key, way: &Way) -> Result<Option<(Arc<Volume>, Record)>, Error> {
        let volume = way.shelf.volume()?;
        let (tag, generation) = (way.tag, way.generation);
        let mut found = volume.find(key, tag, generation, false);
        if matches!(found, Err(Miss::Wait)) {
            let (volume, key) = (Arc::clone(&volume), key.clone());
            found = blocking(move || Ok(volume.find(&key, tag, generation, true))).await?;
        }
        match found {
            Ok(Some(record)) if self.names_are_there(&volume, &record.head) => {
                Ok(Some((volume, record)))
            }
            Ok(_) => Ok(None),
            Err(miss) => {
                // A miss costs the client a build, an error might cost it the cache.
                if let Miss::Failed(error) = miss {
                    log::error!("{}: cannot read: {error}", way.shelf.path());
                }
                Ok(None)
            }
        }
    }

    /// Whether all that an entry names is there, and marks it as used; else drops the entry.
    fn names_are_there(&self, volume: &Volume, head: &Head) -> bool {
        self.inner.names_are_there(volume, head)
    }

    /// Looks an object up for reading. `None`: there is none.
    ///
    /// # Errors
    ///
    /// The volume of the key cannot be used. What the disk fails to read is a miss, and counted.
    pub async fn get(&self, key: &Key) -> Result<Option<Object>, Error> {
        let way = self.way(key);
        let volume = way.shelf.volume()?;
        if let Some((frame, place)) = volume.find_ready(key, way.tag, way.generation) {
            return Ok(Some(Object::ready(volume, frame, place)));
        }
        let found = self.find(key, &way).await?;
        Ok(found.map(|(volume, record)| Object::new(volume, record)))
    }

    /// What is known of an object.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn head(&self, key: &Key) -> Result<Option<Info>, Error> {
        let found = self.find(key, &self.way(key)).await?;
        Ok(found.map(|(volume, record)| {
            let slot = volume.index.get(record.head.tag);
            let pinned = slot.is_some_and(|slot| slot.flags() & PINNED != 0);
            Info::new(&record.head, pinned)
        }))
    }

    /// Starts to store an object.
    ///
    /// # Errors
    ///
    /// The terms cannot be kept to, or the volume of the key cannot be used.
    pub async fn put(&self, key: &Key, terms: Terms) -> Result<Begun, Error> {
        let limit = upload::check(key, &terms)?;
        let way = self.way(key);
        let volume = way.shelf.volume()?;
        let mut seen = None;
        if terms.existing != Existing::Replace {
            if let Some((_, record)) = self.find(key, &way).await? {
                let keeps = terms.existing == Existing::Keep || record.head.flags & TAGGED != 0;
                if keeps {
                    return Ok(Begun::Exists);
                }
            } else {
                // Another key of this tag, one of 2^64.
                seen = volume.index.get(way.tag).map(|slot| slot.place);
            }
        }
        let place = (way.tag, way.generation);
        let upload = Upload::new(way.shelf, key, terms, limit, place, seen);
        Ok(Begun::Upload(Box::new(upload)))
    }

    /// A place on the volume of `key` for bytes that wait, with room for `length` of them.
    ///
    /// # Errors
    ///
    /// The volume cannot be used, or has no room.
    pub async fn scratch(&self, key: &Key, length: u64) -> Result<Scratch, Error> {
        Scratch::new(self.way(key).shelf.volume()?, length).await
    }

    /// Removes an object, durably; `false` if there was none. Readers that have it go on reading.
    ///
    /// # Errors
    ///
    /// The disk failed, or the volume of the key cannot be used.
    pub async fn remove(&self, key: &Key) -> Result<bool, Error> {
        let way = self.way(key);
        let volume = way.shelf.volume()?;
        let unsure = volume.may_return(way.tag);
        let found = self.mark(key, &way, Kind::Removal).await?;
        if found || unsure {
            blocking(move || volume.sync(Flush::Records)).await?;
        }
        Ok(found)
    }

    async fn mark(&self, key: &Key, way: &Way, kind: Kind) -> Result<bool, Error> {
        key.check()?;
        let volume = way.shelf.volume()?;
        if !volume.may_return(way.tag) && self.find(key, way).await?.is_none() {
            return Ok(false);
        }
        let head = Head::mark(kind, key, way.tag, way.generation, self.inner.clock.now());
        let done = way.shelf.submit(Work::Mark(Box::new(head))).await?;
        Ok(done == Done::Written)
    }

    /// Pins an object, or ends that; `false` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Store::remove`].
    pub async fn pin(&self, key: &Key, pin: bool) -> Result<bool, Error> {
        let kind = if pin { Kind::Pin } else { Kind::Unpin };
        self.mark(key, &self.way(key), kind).await
    }

    /// Marks an object as used; `false` if there is none.
    #[must_use]
    pub fn touch(&self, key: &Key) -> bool {
        let way = self.way(key);
        let volume = way.shelf.volume();
        volume.is_ok_and(|volume| volume.index.touch(way.tag, volume.epoch()).is_some())
    }

    /// Keeps an object from eviction until a time (ms since 1970, at most a day ahead), unless the
    /// free-space reserve needs its room; `false` if there is none.
    #[must_use]
    pub fn hold(&self, key: &Key, until: u64) -> bool {
        let way = self.way(key);
        let now = self.inner.clock.now();
        let latest = now + u64::from(LONGEST_HOLD) * 60_000;
        let hold = if until <= now {
            0
        } else {
            minute(until.min(latest))
        };
        let volume = way.shelf.volume();
        volume.is_ok_and(|volume| {
            let epoch = volume.epoch();
            volume.index.change(way.tag, |slot| {
                (slot.hold, slot.last) = (hold, epoch);
            })
        })
    }

    /// Forgets all objects of a project, durably, however many there are. Uploads that began before
    /// fail.
    ///
    /// # Errors
    ///
    /// A disk failed: the project is cleaned, but what was in it may be back after a restart.
    pub async fn clean(&self, account: &str, project: &str) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let project = crate::key::project_hash(account, project);
        blocking(move || inner.clean(project)).await
    }

    /// Calls `each` for the objects of all volumes, oldest first on each, until it breaks. Blocks.
    ///
    /// # Errors
    ///
    /// A disk failed.
    pub fn scan(&self, mut each: impl FnMut(Info) -> ControlFlow<()>) -> Result<(), Error> {
        self.inner.scan(&mut each)
    }

    /// What each volume found when it started empty: "new", "foreign" or why it could not be kept.
    #[must_use]
    pub fn emptied(&self) -> Vec<(String, String)> {
        let shelves = self.inner.shelves.iter();
        let emptied = |shelf: &Arc<Shelf>| {
            let why = shelf.volume().ok()?.label.emptied.clone()?;
            Some((shelf.name.clone(), why))
        };
        shelves.filter_map(emptied).collect()
    }

    /// Whether the index is complete.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        let mut volumes = self.volumes();
        volumes.all(|volume| !volume.is_recovering())
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = Arc<Volume>> {
        self.inner
            .shelves
            .iter()
            .filter_map(|shelf| shelf.volume().ok())
    }
}
