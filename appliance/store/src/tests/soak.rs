//! A long run: nearly full, with eviction, scrubbing, kills, power cuts and faults all at once.
//! `make soak`; `LARDER_SOAK_SECONDS` bounds it.

use std::collections::HashMap;
use std::time::Instant;

use super::*;
use crate::disk::Flush;
use crate::disk::sim::{Cut, Dice, SimDisk};
use crate::{Existing, Status};

const KEYS: u64 = 2000;

fn bytes_of(key: u64, version: u64) -> Vec<u8> {
    let length = crate::format::mix(key ^ version << 20) % 6000;
    let mut bytes = pattern(key << 20 | version, length as usize + 16);
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// Each byte that is shown was once stored under its key, and is no older than what a clean or a removal ended.
async fn look(store: &Store, key: u64, oldest: &HashMap<u64, u64>) -> bool {
    let Some(bytes) = read(store, &super::key(&format!("{key}"))).await else {
        return false;
    };
    let mut version = [0; 8];
    version.copy_from_slice(&bytes[..8]);
    let version = u64::from_le_bytes(version);
    assert!(bytes == bytes_of(key, version), "wrong bytes of {key}");
    assert!(
        version >= oldest.get(&key).copied().unwrap_or(0),
        "{key} came back"
    );
    true
}

async fn soak(seconds: u64, seed: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut dice = Dice(seed);
    let mut disk = SimDisk::new(4 << 20);
    let clock = TestClock::at(NOW);
    let mut store = open_with(&disk, settings(), &clock).await;
    // Versions that a durable removal ended.
    let mut oldest: HashMap<u64, u64> = HashMap::new();
    let (mut version, mut hits, mut evicted, mut faults, mut starts) =
        (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..500 {
            clock.pass(Duration::from_millis(20));
            let key = dice.below(KEYS);
            let name = super::key(&format!("{key}"));
            match dice.below(100) {
                0..60 => {
                    version += 1;
                    let existing = if dice.below(4) == 0 {
                        Existing::Replace
                    } else {
                        Existing::Keep
                    };
                    let terms = Terms {
                        existing,
                        ..terms()
                    };
                    let _ = put_with(&store, &name, &bytes_of(key, version), terms).await;
                }
                60..90 => hits += u64::from(look(&store, key % 200, &oldest).await),
                90..93 => {
                    if matches!(store.remove(&name).await, Ok(true)) {
                        oldest.insert(key, version + 1);
                    }
                }
                93 => {
                    faults += 1;
                    match dice.below(5) {
                        0 => disk.fail_write(dice.below(3)),
                        1 => disk.fail_reads(1),
                        2 => disk.fail_flush(Flush::Footer),
                        3 => disk.fail_flush(Flush::Survivors),
                        _ => disk.fail_flush(Flush::Records),
                    }
                }
                94..96 => {
                    for volume in store.volumes() {
                        volume.scrub(100_000);
                    }
                }
                96 => {
                    for volume in store.volumes() {
                        let _ = volume.checkpoint();
                    }
                }
                _ => {
                    for volume in store.volumes() {
                        let _ = volume.sync(Flush::Records);
                    }
                }
            }
        }
        let usage = store.usage();
        evicted += usage.counts.evicted;
        assert!(usage.used <= 4 << 20);
        // Killed, or without power.
        drop(store);
        disk = if dice.below(2) == 0 {
            disk.killed()
        } else {
            disk.cut(
                disk.now(),
                [Cut::Flushed, Cut::All, Cut::Some(dice.roll())][dice.below(3) as usize],
            )
        };
        store = open_with(&disk, settings(), &clock).await;
        assert_eq!(store.status(), Status::Ready);
        starts += 1;
        for key in 0..KEYS {
            look(&store, key, &oldest).await;
        }
    }
    println!("{version} puts, {hits} hits, {evicted} evicted, {faults} faults, {starts} starts");
    assert!(evicted > 0 && hits > 0 && faults > 0, "nothing happened");
}

#[tokio::test]
async fn everything_at_once() {
    let seconds = std::env::var("LARDER_SOAK_SECONDS");
    let seconds = seconds.map_or(2, |seconds| seconds.parse().unwrap());
    soak(seconds, 42).await;
}
