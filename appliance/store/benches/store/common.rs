//! What the parts share: clocks, keys, puts, and the aims.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};
use store::{Begun, Durability, Key, Kind, Outcome, Settings, Store, Terms};

pub(crate) const SIZE: usize = 8192;
pub(crate) const WRITERS: u64 = 16;

/// What the project promises, and whether it held.
#[derive(Default)]
pub(crate) struct Aims(Vec<String>);

impl Aims {
    pub(crate) fn hold(&mut self, what: &str, holds: bool) {
        if !holds {
            println!("MISSED: {what}");
            self.0.push(what.to_owned());
        }
    }

    /// Says again which did not; how many.
    pub(crate) fn missed(&self) -> usize {
        for what in &self.0 {
            eprintln!("missed: {what}");
        }
        self.0.len()
    }
}

/// Wall and CPU time of the process.
pub(crate) struct Clock(Instant, Duration);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    pub(crate) fn stop(&self) -> (f64, f64) {
        (
            self.0.elapsed().as_secs_f64(),
            (cpu() - self.1).as_secs_f64(),
        )
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

pub(crate) fn key(number: u64) -> Key {
    Key {
        kind: Kind::XcodeCas,
        account: "acme".into(),
        project: "application".into(),
        hash: format!("{number:064x}"),
        ..Key::default()
    }
}

pub(crate) fn body(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; size];
    let head = number.to_le_bytes();
    bytes[..head.len().min(size)].copy_from_slice(&head[..head.len().min(size)]);
    bytes
}

/// Puts `count` objects by 16 writers; objects a second, CPU in µs an object.
pub(crate) async fn puts(store: &Store, from: u64, count: u64, size: usize) -> (f64, f64) {
    let next = Arc::new(AtomicU64::new(from));
    let clock = Clock::start();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, next) = (store.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= from + count {
                        return;
                    }
                    let terms = Terms {
                        limit: 1 << 30,
                        length: Some(size as u64),
                        ..Terms::default()
                    };
                    let begun = store.put(&key(number), terms).await.expect("put");
                    let Begun::Upload(mut upload) = begun else {
                        continue;
                    };
                    upload.write(&body(number, size)).await.expect("write");
                    assert_eq!(upload.finish().await.expect("finish"), Outcome::Stored);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
    let (wall, cpu) = clock.stop();
    (count as f64 / wall, cpu * 1e6 / count as f64)
}

pub(crate) fn settings(folder: &Path, durability: Durability) -> Settings {
    Settings {
        durability,
        scrub_bytes_per_second: 0,
        segment_bytes: Some(128 << 20),
        ..Settings::new(vec![folder.into()])
    }
}

pub(crate) async fn fresh(folder: &Path, durability: Durability) -> Store {
    fs::create_dir_all(folder).expect("a folder");
    Store::open_with(settings(folder, durability)).await
}

/// Forgets the pages of a folder's files.
pub(crate) fn chill(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            chill(&path);
        } else if let Ok(file) = File::open(&path) {
            let _ = file.sync_all();
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}
