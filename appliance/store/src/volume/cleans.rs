//! The generations of cleaned projects.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::disk::{Disk, DiskFile, Flush, read_exact, replace};
use crate::format::cleans::{Clean, ENTRY, parse};

/// Paths of the two copies.
const PATHS: [&str; 2] = ["cleans.a", "cleans.b"];
/// A longer copy is written anew.
const LIMIT: u64 = 1 << 20;

/// The generations of all projects, shared by the volumes of a store.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    /// Most stores have none: then no hash of the project is needed.
    any: AtomicBool,
    map: RwLock<HashMap<[u8; 32], Clean>>,
}

impl Generations {
    /// The generation of a project.
    pub(crate) fn of(&self, project: &[u8; 32]) -> u64 {
        self.with(|| *project)
    }

    /// The generation of a project whose hash is made only if it is needed.
    pub(crate) fn with(&self, project: impl FnOnce() -> [u8; 32]) -> u64 {
        if !self.any.load(Ordering::Acquire) {
            return 0;
        }
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&project()).map_or(0, |clean| clean.generation)
    }

    /// Notes a clean, unless a later one is known.
    pub(crate) fn note(&self, clean: Clean) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let known = map.entry(clean.project).or_insert(clean);
        if known.generation < clean.generation {
            *known = clean;
        }
        self.any.store(true, Ordering::Release);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Clean> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.values().copied().collect()
    }
}

/// The two copies of a volume.
#[derive(Debug)]
pub(crate) struct Copies {
    disk: Arc<dyn Disk>,
    /// Open copies and their lengths; `None`: to be written anew.
    open: [Option<(Arc<dyn DiskFile>, u64)>; 2],
}

impl Copies {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            open: [None, None],
        }
    }

    /// Makes a clean durable in both copies. `all`: those of before, for copies that are written anew.
    pub(super) fn write(&mut self, clean: Clean, all: &[Clean]) -> io::Result<()> {
        for (path, slot) in PATHS.into_iter().zip(&mut self.open) {
            // One whose sync failed is never synced again.
            let open = slot.take().filter(|(_, length)| *length < LIMIT);
            let (file, length) = match open {
                Some((file, length)) => {
                    file.write_at(&clean.to_bytes(), length)?;
                    file.sync(Flush::Clean)?;
                    (file, length + ENTRY as u64)
                }
                None => {
                    let mut bytes = Vec::with_capacity((all.len() + 1) * ENTRY);
                    for clean in all.iter().chain([&clean]) {
                        bytes.extend_from_slice(&clean.to_bytes());
                    }
                    replace(&*self.disk, path, &bytes, Flush::Clean)?;
                    (self.disk.open(path)?, bytes.len() as u64)
                }
            };
            *slot = Some((file, length));
        }
        Ok(())
    }
}

/// What both copies of a volume hold. What cannot be read is in the other copy.
pub(super) fn read(disk: &dyn Disk) -> Vec<Clean> {
    let mut cleans = Vec::new();
    for path in PATHS {
        let bytes = disk.open(path).and_then(|file| {
            let length = file.length()?;
            read_exact(&*file, 0, usize::try_from(length).unwrap_or(0))
        });
        match bytes {
            Ok(bytes) => cleans.extend(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                log::error!("{}: cannot read: {error}", disk.root().join(path).display());
            }
        }
    }
    cleans
}

impl super::Volume {
    /// Makes a clean durable on this volume.
    pub(crate) fn write_clean(&self, clean: Clean) -> Result<(), crate::Error> {
        let all = self.generations.all();
        let written = super::lock(&self.cleans).write(clean, &all);
        self.note(written.map_err(crate::Error::io(&self.path(PATHS[0]), "write")))
    }
}
