//! Tests of the store as a whole, on simulated and real disks.

mod basics;
mod crash;
mod damage;
mod eviction;
mod faults;
mod input;
mod mutants;
mod policy;
mod real;
mod soak;
mod stuck;
mod trace;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::{Begun, Error, Key, Kind, Outcome, Settings, Store, Terms};

/// A clock that tests set.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(ms: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(ms)))
    }

    pub(crate) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// 2026-01-01.
pub(crate) const NOW: u64 = 1_767_225_600_000;
pub(crate) const SEGMENT: u64 = 64 * 1024;

pub(crate) fn settings() -> Settings {
    Settings {
        segment_bytes: Some(SEGMENT),
        large_from: 8 * 1024,
        ..Settings::new(vec![PathBuf::from("one")])
    }
}

/// A store without threads on a simulated disk: what happens, happens when a test asks for it.
pub(crate) async fn open(disk: &SimDisk) -> Store {
    open_with(disk, settings(), &TestClock::at(NOW)).await
}

pub(crate) async fn open_with(disk: &SimDisk, settings: Settings, clock: &Arc<TestClock>) -> Store {
    let disk = Arc::new(disk.clone()) as Arc<dyn Disk>;
    let store = Store::new(settings, vec![disk], Arc::clone(clock) as _, false);
    store.check().await;
    store
}

pub(crate) fn key(hash: &str) -> Key {
    Key {
        kind: Kind::XcodeCas,
        account: "acme".into(),
        project: "app".into(),
        hash: hash.into(),
        ..Key::default()
    }
}

pub(crate) fn terms() -> Terms {
    Terms {
        limit: 1 << 30,
        ..Terms::default()
    }
}

pub(crate) async fn put_with(
    store: &Store,
    key: &Key,
    bytes: &[u8],
    terms: Terms,
) -> Result<Outcome, Error> {
    match store.put(key, terms).await? {
        Begun::Exists => Ok(Outcome::Exists),
        Begun::Upload(mut upload) => {
            for piece in bytes.chunks(5000) {
                upload.write(piece).await?;
            }
            upload.finish().await
        }
    }
}

pub(crate) async fn put(store: &Store, hash: &str, bytes: &[u8]) -> Result<Outcome, Error> {
    put_with(store, &key(hash), bytes, terms()).await
}

pub(crate) async fn read(store: &Store, key: &Key) -> Option<Vec<u8>> {
    let object = store.get(key).await.unwrap()?;
    let mut reader = object.read(0..u64::MAX);
    let mut read = Vec::new();
    while let Some(chunk) = reader.next().await.ok()? {
        assert!(!chunk.is_empty());
        read.extend_from_slice(&chunk);
    }
    Some(read)
}

pub(crate) async fn get(store: &Store, hash: &str) -> Option<Vec<u8>> {
    read(store, &key(hash)).await
}

/// Bytes that differ from object to object.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|word| crate::format::mix(seed << 32 ^ word));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// Whether the long versions of tests run.
pub(crate) fn all() -> bool {
    std::env::var_os("LARDER_TEST_ALL").is_some()
}
