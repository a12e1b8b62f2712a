//! The place of a volume.

use std::sync::{Arc, PoisonError, RwLock};

use crate::Error;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::settings::Settings;
use crate::volume::{Done, Threads, Volume, Work};

/// The place of a volume, which may be there or not.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(super) name: String,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) threads: RwLock<Result<Arc<Threads>, String>>,
}

impl Shelf {
    pub(super) fn threads(&self) -> Result<Arc<Threads>, Error> {
        let threads = self.threads.read().unwrap_or_else(PoisonError::into_inner);
        threads.clone().map_err(|reason| Error::Unusable { reason })
    }

    /// Takes the volume away.
    pub(super) fn shut(&self) -> Option<Arc<Threads>> {
        let threads = self.threads.write();
        let mut threads = threads.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *threads, Err("the store was closed".into())).ok()
    }

    pub(crate) fn volume(&self) -> Result<Arc<Volume>, Error> {
        self.threads().map(|threads| Arc::clone(&threads.volume))
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Objects from this length on have files of their own.
    pub(crate) fn large_from(&self) -> u64 {
        let segment = self.volume().map_or(4 << 20, |volume| volume.segment_bytes);
        self.settings.large_from.min(segment / 4)
    }

    pub(crate) async fn submit(&self, work: Work) -> Result<Done, Error> {
        let answer = self.threads()?.submit(work);
        answer.await.unwrap_or(Err(Error::Interrupted))
    }

    /// Its folder, for messages.
    pub(super) fn path(&self) -> String {
        self.disk.root().display().to_string()
    }
}
