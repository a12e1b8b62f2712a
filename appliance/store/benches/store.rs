//! `make bench-store`: the store beside one file an object, same run, same disk, one core.
//!
//! `LARDER_BENCH_DIR`: where (default: the target folder's disk); `LARDER_BENCH_OBJECTS`: objects in the
//! index of the large part (default 5 million, about 2.5 GB). Ratios that the project promises are asserted, the rest
//! is printed as the table that `docs/benchmarks.md` holds.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use store::{Begun, Durability, Key, Kind, Outcome, Settings, Store, Terms};

const SIZE: usize = 8192;
const WRITERS: u64 = 16;

/// Wall and CPU time of the process.
struct Clock(Instant, Duration);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    fn stop(&self) -> (f64, f64) {
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

fn key(number: u64) -> Key {
    Key {
        kind: Kind::XcodeCas,
        account: "acme".into(),
        project: "application".into(),
        hash: format!("{number:064x}"),
        ..Key::default()
    }
}

fn body(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; size];
    let head = number.to_le_bytes();
    bytes[..head.len().min(size)].copy_from_slice(&head[..head.len().min(size)]);
    bytes
}

/// Puts `count` objects by 16 writers; objects a second, CPU in µs an object.
async fn puts(store: &Store, from: u64, count: u64, size: usize) -> (f64, f64) {
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

/// The same with one file an object; `keep`: how many stay, older ones are unlinked.
fn files(folder: &Path, count: u64, sync: bool, keep: u64) -> (f64, f64) {
    for shard in 0..64 {
        fs::create_dir_all(folder.join(format!("{shard:02}"))).expect("a folder");
    }
    let next = AtomicU64::new(0);
    let path = |number: u64| folder.join(format!("{:02}/{number:064x}", number % 64));
    let clock = Clock::start();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (next, path) = (&next, &path);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let temporary = folder.join(format!("tmp-{writer}-{number}"));
                    let mut file = OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .open(&temporary)
                        .expect("a file");
                    file.write_all(&body(number, SIZE)).expect("write");
                    if sync {
                        file.sync_data().expect("fdatasync");
                    }
                    fs::hard_link(&temporary, path(number)).expect("link");
                    if sync {
                        let folder = folder.join(format!("{:02}", number % 64));
                        File::open(folder)
                            .expect("the folder")
                            .sync_all()
                            .expect("fsync");
                    }
                    fs::remove_file(&temporary).expect("unlink");
                    if let Some(old) = number.checked_sub(keep) {
                        // Another writer may not have made it yet.
                        let _ = fs::remove_file(path(old));
                    }
                }
            });
        }
    });
    let (wall, cpu) = clock.stop();
    (count as f64 / wall, cpu * 1e6 / count as f64)
}

fn settings(folder: &Path, durability: Durability) -> Settings {
    Settings {
        durability,
        scrub_bytes_per_second: 0,
        segment_bytes: Some(128 << 20),
        ..Settings::new(vec![folder.into()])
    }
}

async fn fresh(folder: &Path, durability: Durability) -> Store {
    fs::create_dir_all(folder).expect("a folder");
    Store::open_with(settings(folder, durability)).await
}

async fn writing(root: &Path) {
    println!("| 8 KiB puts by 16 writers, one core | puts/s | CPU µs |\n|---|---|---|");
    let row = |name: &str, (puts, cpu): (f64, f64)| {
        println!("| {name} | {puts:.0} | {cpu:.1} |");
        (puts, cpu)
    };
    let synced = row(
        "files: write, fdatasync, link, fsync of the folder",
        files(&root.join("f1"), 4000, true, u64::MAX),
    );
    let unsynced = row(
        "files, never synced",
        files(&root.join("f2"), 30_000, false, u64::MAX),
    );
    let store = fresh(&root.join("s1"), Durability::Ack).await;
    let ack = row(
        "store, answered after fdatasync",
        puts(&store, 0, 60_000, SIZE).await,
    );
    drop(store);
    let store = fresh(&root.join("s2"), Durability::Lazy).await;
    let lazy = row(
        "store, durable within a second",
        puts(&store, 0, 100_000, SIZE).await,
    );
    let usage = store.usage();
    drop(store);
    let each = usage.counts.stored_bytes as f64 / 100_000.0 + 32.0;
    println!(
        "\nat equal durability {:.1} : 1; beside files never synced {:.1} : 1",
        ack.0 / synced.0,
        lazy.0 / unsynced.0
    );
    println!(
        "bytes on disk per 8 KiB object: {each:.0}, {:.3} times",
        each / SIZE as f64
    );
    assert!(
        ack.0 >= 10.0 * synced.0,
        "less than 10 times files at equal durability"
    );
    assert!(
        lazy.0 >= 2.0 * unsynced.0,
        "less than 2 times files never synced"
    );
    assert!(each <= 1.05 * SIZE as f64, "more than 1.05 times the bytes");
}

async fn reading(root: &Path) {
    let store = Store::open_with(settings(&root.join("s2"), Durability::Lazy)).await;
    let count = 100_000_u64;
    while !store.is_recovered() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let path = root.join("plain");
    fs::write(&path, vec![1; 64 << 20]).expect("a file");
    let file = File::open(&path).expect("the file");
    let mut best = (f64::MAX, f64::MAX);
    // The smallest of several: others use this machine too.
    for _ in 0..5 {
        let mut buffer = vec![0; SIZE];
        let clock = Clock::start();
        for number in 0..count {
            let at = number.wrapping_mul(0x9e37_79b9) % (8 << 10) * SIZE as u64;
            file.read_exact_at(&mut buffer, at).expect("pread");
        }
        best.0 = best.0.min(clock.stop().1 * 1e6 / count as f64);
        let keys: Vec<Key> = (0..8192).map(|number| key(number * 7 % 100_000)).collect();
        let clock = Clock::start();
        for number in 0..count {
            let key = &keys[(number % 8192) as usize];
            let object = store.get(key).await.expect("get").expect("a hit");
            let chunk = object.read(0..u64::MAX).next_ready().expect("in memory");
            assert_eq!(chunk.len(), SIZE);
        }
        best.1 = best.1.min(clock.stop().1 * 1e6 / count as f64);
    }
    println!(
        "\nreads of 8 KiB from the page cache: pread {:.2} µs, store {:.2} µs CPU, {:.2} times",
        best.0,
        best.1,
        best.1 / best.0
    );
    assert!(
        best.1 <= 1.3 * best.0,
        "more than 1.3 times the CPU of pread"
    );
}

/// Forgets the pages of a folder's files.
fn chill(folder: &Path) {
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

async fn open_timed(settings: Settings) -> (Store, f64) {
    let start = Instant::now();
    let store = Store::open_with(settings).await;
    while !store.is_recovered() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (store, start.elapsed().as_secs_f64())
}

async fn many(root: &Path) {
    let objects: u64 = std::env::var("LARDER_BENCH_OBJECTS")
        .map_or(5_000_000, |count| count.parse().expect("a number"));
    let folder = root.join("many");
    let store = fresh(&folder, Durability::Lazy).await;
    // The oldest 100,000 are those that are evicted.
    puts(&store, 0, 100_000, SIZE).await;
    let first = store.usage().used;
    puts(&store, 100_000, objects - 100_000, 16).await;
    let usage = store.usage();
    let each = usage.index_bytes as f64 / usage.objects as f64;
    println!(
        "\n{} objects: {each:.1} bytes of memory each",
        usage.objects
    );
    assert!(each <= 64.0, "more than 64 bytes an object");
    drop(store);
    chill(&folder);
    let (store, seconds) = open_timed(settings(&folder, Durability::Lazy)).await;
    assert_eq!(store.usage().objects, objects);
    println!("open from a checkpoint, cold: {seconds:.2} s");
    drop(store);
    let scale = objects as f64 / 5e6;
    assert!(
        seconds <= 1.0_f64.max(scale),
        "more than 1 s from a checkpoint"
    );
    for name in ["checkpoint.a", "checkpoint.b"] {
        let _ = fs::remove_file(folder.join("larder-store").join(name));
    }
    chill(&folder);
    let (store, seconds) = open_timed(settings(&folder, Durability::Lazy)).await;
    assert_eq!(store.usage().objects, objects);
    println!("open from footers, cold: {seconds:.2} s");
    assert!(
        seconds <= 10.0_f64.max(10.0 * scale),
        "more than 10 s from footers"
    );
    let used = store.usage().used;
    drop(store);
    chill(&folder);
    let smaller = Settings {
        capacity: Some(used - first.min(used / 2) + (256 << 20)),
        ..settings(&folder, Durability::Lazy)
    };
    let (store, _) = open_timed(smaller).await;
    let clock = Clock::start();
    let wait = Instant::now();
    while store.usage().counts.evicted < 90_000 && wait.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (wall, cpu) = clock.stop();
    let counts = store.usage().counts;
    let scaled = cpu * 100_000.0 / counts.evicted.max(1) as f64;
    println!(
        "evicted {} objects of 8 KiB, cold pages: {:.0} ms CPU ({:.0} ms for 100,000), {:.0} ms wall; {} survivors, {} bytes copied",
        counts.evicted,
        cpu * 1e3,
        scaled * 1e3,
        wall * 1e3,
        counts.survivors,
        counts.survivor_bytes
    );
    assert!(counts.evicted >= 90_000, "nothing was evicted");
    assert!(scaled <= 0.1, "more than 100 ms of CPU");
}

async fn full(root: &Path) {
    let folder = root.join("full");
    fs::create_dir_all(&folder).expect("a folder");
    let settings = Settings {
        capacity: Some(512 << 20),
        segment_bytes: Some(8 << 20),
        ..settings(&folder, Durability::Lazy)
    };
    let store = Store::open_with(settings).await;
    puts(&store, 0, 60_000, SIZE).await;
    let (ours, cpu) = puts(&store, 60_000, 60_000, SIZE).await;
    let evicted = store.usage().counts.evicted;
    drop(store);
    let (theirs, their_cpu) = files(&root.join("f3"), 20_000, false, 5000);
    println!(
        "\nfull, puts at the pace of eviction: store {ours:.0}/s ({cpu:.1} µs, {evicted} evicted), files {theirs:.0}/s ({their_cpu:.1} µs): {:.1} : 1",
        ours / theirs
    );
}

async fn threshold(root: &Path) {
    println!("\n| object | in the log, MB/s | file of its own, MB/s |\n|---|---|---|");
    for (number, kib) in [256_u64, 512, 1024, 2048, 4096].into_iter().enumerate() {
        let mut speeds = Vec::new();
        for large_from in [u64::MAX, 1] {
            let folder = root.join(format!("t{number}-{large_from}"));
            fs::create_dir_all(&folder).expect("a folder");
            let settings = Settings {
                large_from,
                ..settings(&folder, Durability::Ack)
            };
            let store = Store::open_with(settings).await;
            let count = 192 * 1024 / kib;
            let (speed, _) = puts(&store, 0, count, (kib * 1024) as usize).await;
            speeds.push(speed * kib as f64 / 1000.0);
            drop(store);
            let _ = fs::remove_dir_all(folder);
        }
        println!("| {kib} KiB | {:.0} | {:.0} |", speeds[0], speeds[1]);
    }
}

fn main() {
    let around = std::env::var_os("LARDER_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let root = around.join(format!("bench-store-{}", std::process::id()));
    fs::create_dir_all(&root).expect("the folder of the benchmark");
    let mut one = CpuSet::new();
    one.set(1);
    sched_setaffinity(None, &one).expect("one core");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = std::panic::catch_unwind(|| {
        let part = std::env::var("LARDER_BENCH_PART").unwrap_or_default();
        let wants = |name: &str| part.is_empty() || part == name;
        runtime.block_on(async {
            if wants("write") {
                writing(&root).await;
                reading(&root).await;
            }
            if wants("full") {
                full(&root).await;
            }
            if wants("threshold") {
                threshold(&root).await;
            }
            if wants("many") {
                many(&root).await;
            }
        });
    });
    let _ = fs::remove_dir_all(&root);
    if outcome.is_err() {
        std::process::exit(1);
    }
}
