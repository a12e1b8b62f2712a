//! Puts beside files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use store::{Durability, Settings, Store};

use crate::common::{Aims, Clock, SIZE, WRITERS, body, fresh, puts, settings};

const ROUNDS: usize = 5;

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

/// The middle one.
fn median(mut values: Vec<(f64, f64)>) -> (f64, f64) {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    values[values.len() / 2]
}

/// Puts into a fresh store in `folder`.
async fn fresh_puts(folder: &Path, durability: Durability, count: u64) -> (f64, f64) {
    let store = fresh(folder, durability).await;
    let figures = puts(&store, 0, count, SIZE).await;
    store.close().await;
    figures
}

/// Acknowledged puts alone, for a profiler.
pub(crate) async fn acknowledged(root: &Path) {
    for round in 0..ROUNDS {
        let folder = root.join(format!("ack{round}"));
        let (speed, cpu) = fresh_puts(&folder, Durability::Ack, 20_000).await;
        println!("{speed:.0} a second, {cpu:.1} µs");
    }
}

/// Rounds of all four, and the middle of each.
async fn rounds(root: &Path, delete: bool) -> [(f64, f64); 4] {
    let mut figures = [vec![], vec![], vec![], vec![]];
    for round in 0..ROUNDS {
        for (number, all) in figures.iter_mut().enumerate() {
            let folder = root.join(format!("{round}-{number}"));
            all.push(match number {
                0 => files(&folder, 2000, true, u64::MAX),
                1 => fresh_puts(&folder, Durability::Ack, 20_000).await,
                2 => files(&folder, 10_000, false, u64::MAX),
                _ => fresh_puts(&folder, Durability::Lazy, 50_000).await,
            });
            if delete {
                fs::remove_dir_all(folder).expect("removed");
            }
        }
    }
    figures.map(median)
}

pub(crate) async fn side_by_side(root: &Path, aims: &mut Aims) {
    // First without a deletion: all that is made stays.
    let (kept, deleted) = (root.join("kept"), root.join("deleted"));
    let first = rounds(&kept, false).await;
    fs::remove_dir_all(kept).expect("removed");
    let later = rounds(&deleted, true).await;
    println!(
        "| 8 KiB puts by 16 writers, one core, medians of {ROUNDS} | nothing is deleted: puts/s, CPU µs | files are deleted too |\n|---|---|---|"
    );
    for (number, name) in [
        "files: write, fdatasync, link, fsync of the folder",
        "store, answered after fdatasync",
        "files, never synced",
        "store, durable within a second",
    ]
    .into_iter()
    .enumerate()
    {
        let (first, later) = (first[number], later[number]);
        println!(
            "| {name} | {:.0}, {:.1} | {:.0}, {:.1} |",
            first.0, first.1, later.0, later.1
        );
    }
    for (when, [synced, ack, unsynced, lazy]) in [
        ("a disk without deletions", first),
        ("a full cache's disk", later),
    ] {
        let (equal, never) = (ack.0 / synced.0, lazy.0 / unsynced.0);
        println!(
            "{when}: at equal durability {equal:.1} : 1; beside files never synced {never:.1} : 1"
        );
        aims.hold(
            &format!("{when}: 10 times files at equal durability"),
            equal >= 10.0,
        );
        aims.hold(&format!("{when}: 2 times files never synced"), never >= 2.0);
    }
    let folder = root.join("bytes");
    let store = fresh(&folder, Durability::Lazy).await;
    puts(&store, 0, 100_000, SIZE).await;
    // And its entry in the footer.
    let each = store.usage().counts.stored_bytes as f64 / 100_000.0 + 32.0;
    store.close().await;
    let _ = fs::remove_dir_all(folder);
    println!(
        "bytes on disk per 8 KiB object: {each:.0}, {:.3} times",
        each / SIZE as f64
    );
    aims.hold(
        "1.05 times the bytes of an object",
        each <= 1.05 * SIZE as f64,
    );
}

/// A full store, and as many files.
pub(crate) async fn full(root: &Path) {
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
    store.close().await;
    let (theirs, their_cpu) = files(&root.join("f3"), 20_000, false, 5000);
    println!(
        "\nfull, puts at the pace of eviction: store {ours:.0}/s ({cpu:.1} µs, {evicted} evicted), files {theirs:.0}/s ({their_cpu:.1} µs): {:.1} : 1",
        ours / theirs
    );
}

/// From which length on a file of its own is faster.
pub(crate) async fn threshold(root: &Path) {
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
            store.close().await;
            let _ = fs::remove_dir_all(folder);
        }
        println!("| {kib} KiB | {:.0} | {:.0} |", speeds[0], speeds[1]);
    }
}
