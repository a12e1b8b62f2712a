//! Millions of objects: memory, starts, eviction.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use store::{Begun, Durability, Key, Kind, Settings, Store, Terms};

use crate::common::{Aims, Clock, SIZE, chill, fresh, key, puts, settings};

/// Entries, each of which names objects that are evicted.
const ENTRIES: u64 = 10_000;
const NAMED: u64 = 10;

fn entry(number: u64) -> Key {
    Key {
        kind: Kind::KeyValue,
        ..key(number)
    }
}

async fn put_entries(store: &Store) {
    for number in 0..ENTRIES {
        let terms = Terms {
            limit: 1 << 20,
            names: (0..NAMED).map(|name| key(number * NAMED + name)).collect(),
            ..Terms::default()
        };
        let Begun::Upload(mut upload) = store.put(&entry(number), terms).await.expect("put") else {
            panic!("entry {number} is there");
        };
        upload.write(b"entry").await.expect("write");
        upload.finish().await.expect("finish");
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

/// Memory, starts and eviction of many objects.
pub(crate) async fn objects(root: &Path, aims: &mut Aims) {
    let objects: u64 = std::env::var("LARDER_BENCH_OBJECTS")
        .map_or(5_000_000, |count| count.parse().expect("a number"));
    let folder = root.join("many");
    let store = fresh(&folder, Durability::Lazy).await;
    // The oldest 100,000 are those that are evicted.
    puts(&store, 0, 100_000, SIZE).await;
    let first = store.usage().used;
    put_entries(&store).await;
    puts(&store, 100_000, objects - 100_000, 16).await;
    let objects = objects + ENTRIES;
    let usage = store.usage();
    let each = usage.index_bytes as f64 / usage.objects as f64;
    println!(
        "\n{} objects: {each:.1} bytes of memory each",
        usage.objects
    );
    aims.hold("at most 64 bytes an object", each <= 64.0);
    store.close().await;
    chill(&folder);
    let (store, seconds) = open_timed(settings(&folder, Durability::Lazy)).await;
    assert_eq!(store.usage().objects, objects);
    println!("open from a checkpoint, cold: {seconds:.2} s");
    store.close().await;
    let scale = objects as f64 / 5e6;
    aims.hold(
        "at most 1 s from a checkpoint",
        seconds <= 1.0_f64.max(scale),
    );
    for name in ["checkpoint.a", "checkpoint.b"] {
        let _ = fs::remove_file(folder.join("larder-store").join(name));
    }
    chill(&folder);
    let (store, seconds) = open_timed(settings(&folder, Durability::Lazy)).await;
    assert_eq!(store.usage().objects, objects);
    println!("open from footers, cold: {seconds:.2} s");
    aims.hold(
        "at most 10 s from footers",
        seconds <= 10.0_f64.max(10.0 * scale),
    );
    let used = store.usage().used;
    store.close().await;
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
    let (_, evicting) = clock.stop();
    // The cascade: entries that name what is gone are found to be gone as well.
    let mut left = 0;
    for number in 0..ENTRIES {
        left += usize::from(store.head(&entry(number)).await.expect("head").is_some());
    }
    let (wall, cpu) = clock.stop();
    let counts = store.usage().counts;
    let scaled = cpu * 100_000.0 / counts.evicted.max(1) as f64;
    println!(
        "evicted {} objects of 8 KiB, cold pages: {:.0} ms CPU ({:.0} ms for 100,000; {:.0} ms before the cascade), {:.0} ms wall, with {} entries that named them; {} survivors, {} bytes copied",
        counts.evicted,
        cpu * 1e3,
        scaled * 1e3,
        evicting * 1e3,
        wall * 1e3,
        counts.cascaded,
        counts.survivors,
        counts.survivor_bytes
    );
    assert!(counts.evicted >= 90_000, "nothing was evicted");
    assert!(
        left as u64 <= ENTRIES / 10 && counts.cascaded > 0,
        "{left} entries are left"
    );
    store.close().await;
    let _ = fs::remove_dir_all(folder);
    aims.hold("at most 100 ms of CPU", scaled <= 0.1);
}
