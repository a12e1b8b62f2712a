//! Bent bytes: a miss or a broken transfer, never a wrong byte; and a store that starts whatever lies there.

use std::sync::Mutex;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::disk::Flush;
use crate::disk::sim::{Dice, SimDisk};
use crate::{Finding, Status};

/// A disk with some objects on it, with a checkpoint and without a footer at the end.
async fn made() -> SimDisk {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    for number in 0..40 {
        put(
            &store,
            &format!("{number}"),
            &pattern(number, 500 * number as usize),
        )
        .await
        .unwrap();
        if number == 25 {
            store
                .volumes()
                .for_each(|volume| volume.checkpoint().unwrap());
        }
    }
    store
        .volumes()
        .for_each(|volume| volume.sync(Flush::Records).unwrap());
    disk
}

#[tokio::test]
async fn a_bent_bit_anywhere_is_a_miss() {
    let disk = made().await;
    let mut dice = Dice(1);
    let mut misses = 0;
    for _ in 0..if all() { 2000 } else { 300 } {
        let bent = disk.killed();
        let paths = bent.paths();
        let path = &paths[dice.below(paths.len() as u64) as usize];
        let length = bent.length_of(path) as u64;
        if length == 0 {
            continue;
        }
        let at = dice.below(length) as usize;
        bent.damage(path, |bytes| bytes[at] ^= 1 << dice.below(8));
        bent.start_recording();
        let store = open(&bent).await;
        assert_eq!(store.status(), Status::Ready);
        let mut missing = 0;
        for number in 0..40 {
            match get(&store, &format!("{number}")).await {
                Some(bytes) => assert!(
                    bytes == pattern(number, 500 * number as usize),
                    "{path} {at}"
                ),
                None => missing += 1,
            }
        }
        // The header of a segment or the whole superblock may cost more than one object.
        assert!(missing <= 1 || at < 4096, "{path} {at}: {missing} missing");
        misses += missing;
    }
    assert!(misses > 0);
}

#[tokio::test]
async fn a_damaged_object_is_dropped_and_stored_anew() {
    let disk = made().await;
    let store = open(&disk.killed()).await;
    drop(store);
    let disk = disk.killed();
    let store = open(&disk).await;
    let large = disk
        .paths()
        .into_iter()
        .find(|path| path.starts_with("large/"))
        .unwrap();
    disk.damage(&large, |bytes| bytes[100] ^= 1);
    disk.damage("segments/00000001.seg", |bytes| bytes[1500] ^= 1);
    // The scrub finds both.
    let before = store.usage().objects;
    for volume in store.volumes() {
        while !volume.scrub(100_000) {}
    }
    let usage = store.usage();
    assert_eq!((usage.counts.damaged, before - usage.objects), (2, 2));
    assert_eq!(usage.counts.scrub_turns, 1);
    for number in 0..40 {
        let bytes = pattern(number, 500 * number as usize);
        put(&store, &format!("{number}"), &bytes).await.unwrap();
        assert!(get(&store, &format!("{number}")).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn damage_and_read_errors_while_serving_are_misses() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    for name in ["a", "b", "c"] {
        put(&store, name, &pattern(1, 2000)).await.unwrap();
    }
    disk.damage("segments/00000001.seg", |bytes| bytes[1000] ^= 128);
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(get(&store, "b").await.unwrap(), pattern(1, 2000));
    disk.fail_reads(1);
    assert_eq!(get(&store, "b").await, None);
    let counts = store.usage().counts;
    assert_eq!((counts.damaged, counts.read_errors), (2, 1));
    assert_eq!(get(&store, "c").await.unwrap(), pattern(1, 2000));
    // A transfer that has begun breaks off before the damaged block.
    put(&store, "large", &pattern(2, 400_000)).await.unwrap();
    let large = disk
        .paths()
        .into_iter()
        .find(|path| path.starts_with("large/"))
        .unwrap();
    disk.damage(&large, |bytes| bytes[300_000] ^= 1);
    let mut reader = store
        .get(&key("large"))
        .await
        .unwrap()
        .unwrap()
        .read(0..u64::MAX);
    let (whole, mut came) = (pattern(2, 400_000), 0);
    let broken = loop {
        match reader.next().await {
            Ok(piece) => {
                let piece = piece.expect("it ends before its end");
                assert!(piece == whole[came..came + piece.len()]);
                came += piece.len();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(broken, Error::Damaged { .. }), "{broken}");
    assert!((1..=300_000).contains(&came), "{came}");
    assert_eq!(get(&store, "large").await, None);
}

#[tokio::test]
async fn an_empty_foreign_or_wrecked_volume_starts_empty_and_says_so() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    assert_eq!(store.emptied()[0].1, "the disk was empty");
    put(&store, "a", b"1").await.unwrap();
    store
        .volumes()
        .for_each(|volume| volume.sync(Flush::Records).unwrap());
    drop(store);
    assert!(open(&disk).await.emptied().is_empty());
    disk.damage("volume", |bytes| {
        bytes.iter_mut().for_each(|byte| *byte = 7)
    });
    let store = open(&disk).await;
    assert_eq!(store.emptied()[0].1, "its superblock was wrecked");
    assert_eq!(get(&store, "a").await, None);
    put(&store, "a", b"2").await.unwrap();
    let foreign = SimDisk::new(16 << 20);
    foreign.set_foreign();
    let store = open(&foreign).await;
    assert!(store.emptied()[0].1.contains("other things"));
    put(&store, "a", b"3").await.unwrap();
}

#[tokio::test]
async fn the_audit_finds_a_poisoned_object() {
    let store = open(&SimDisk::new(16 << 20)).await;
    let id = |plain: &[u8]| {
        let hash = Sha256::new()
            .chain_update(plain)
            .chain_update(b"cache-v1")
            .finalize();
        crate::error::hex(&hash).to_uppercase()
    };
    let stored = |plain: &[u8]| zstd::encode_all(plain, 3).unwrap();
    let (good, evil) = (pattern(1, 50_000), pattern(2, 50_000));
    put(&store, &id(&good), &stored(&good)).await.unwrap();
    put(&store, &id(b"victim"), &stored(&evil)).await.unwrap();
    put(&store, &id(b"noise"), b"no zstd").await.unwrap();
    put(&store, "no id", b"anything").await.unwrap();
    let mut found = Vec::new();
    store
        .audit(|info, finding| found.push((info.key.key().unwrap().hash, finding)))
        .unwrap();
    assert_eq!(found.len(), 3);
    let of = |hash: String| {
        found
            .iter()
            .find(|(key, _)| *key == hash)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(of(id(&good)), Finding::Right);
    assert_eq!(of(id(b"victim")), Finding::Poisoned(id(&evil)));
    assert!(matches!(of(id(b"noise")), Finding::Undecodable(_)));
    assert!(get(&store, &id(b"victim")).await.is_some());
}

#[tokio::test]
async fn a_poisoned_lock_poisons_nothing() {
    // What a panicking thread leaves behind is still served.
    let mutex = Mutex::new(7);
    let _ = std::panic::catch_unwind(|| {
        let _guard = mutex.lock();
        panic!("on purpose");
    });
    assert_eq!(*crate::volume::lock(&mutex), 7);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if all() { 300 } else { 20 }))]
    #[test]
    fn noise_in_place_of_a_file_hurts_nobody(seed: u64, which in 0..9_usize, length in 0..9000_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = made().await;
            let paths = disk.paths();
            let path = &paths[which % paths.len()];
            disk.damage(path, |bytes| *bytes = pattern(seed, length));
            disk.start_recording();
            let store = open(&disk).await;
            for number in 0..40 {
                let bytes = get(&store, &format!("{number}")).await;
                assert!(bytes.is_none_or(|bytes| bytes == pattern(number, 500 * number as usize)));
            }
            put(&store, "new", b"bytes").await.unwrap();
        });
    }
}
