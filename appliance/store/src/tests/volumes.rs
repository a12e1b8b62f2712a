//! Several volumes: one that is lost, added, or comes back makes the cache smaller, not wrong.

use super::*;
use crate::disk::Flush;
use crate::disk::sim::SimDisk;
use crate::{Existing, Status};

async fn open_all(disks: &[(&str, &SimDisk)]) -> Store {
    let volumes = disks.iter().map(|(name, _)| PathBuf::from(name)).collect();
    let settings = Settings {
        volumes,
        ..settings()
    };
    let disks = disks
        .iter()
        .map(|(_, disk)| Arc::new((*disk).clone()) as Arc<dyn Disk>);
    let store = Store::new(settings, disks.collect(), TestClock::at(NOW), false);
    store.check().await;
    store
}

async fn put_all(store: &Store, value: u64) {
    for number in 0..100 {
        let terms = Terms {
            existing: Existing::Replace,
            ..terms()
        };
        let bytes = pattern(value * 1000 + number, 100);
        // A volume that is not there takes nothing.
        let _ = put_with(store, &key(&format!("{number}")), &bytes, terms).await;
    }
    store
        .volumes()
        .for_each(|volume| volume.sync(Flush::Records).unwrap());
}

/// How many objects have this value; any other value fails.
async fn count(store: &Store, value: u64) -> usize {
    let mut found = 0;
    for number in 0..100 {
        if let Ok(Some(object)) = store.get(&key(&format!("{number}"))).await {
            let bytes = object.read(0..100).next_ready().unwrap();
            assert!(
                bytes == pattern(value * 1000 + number, 100),
                "{number} is stale"
            );
            found += 1;
        }
    }
    found
}

#[tokio::test]
async fn a_lost_volume_and_one_that_is_new() {
    let (a, b) = (SimDisk::new(8 << 20), SimDisk::new(8 << 20));
    let store = open_all(&[("a", &a), ("b", &b)]).await;
    put_all(&store, 1).await;
    assert_eq!(count(&store, 1).await, 100);
    drop(store);
    // The disk of b is replaced by an empty one.
    b.wipe();
    let store = open_all(&[("a", &a), ("b", &b)]).await;
    assert_eq!(store.status(), Status::Ready);
    let left = count(&store, 1).await;
    assert!((20..80).contains(&left), "{left}");
    put_all(&store, 2).await;
    assert_eq!(count(&store, 2).await, 100);
}

#[tokio::test]
async fn no_list_of_volumes_brings_an_old_version_back() {
    let (a, b, c) = (
        SimDisk::new(8 << 20),
        SimDisk::new(8 << 20),
        SimDisk::new(8 << 20),
    );
    let lists: [&[(&str, &SimDisk)]; 8] = [
        &[("a", &a)],
        &[("a", &a), ("b", &b)],
        &[("b", &b)],
        &[("a", &a), ("b", &b)],
        &[("c", &c), ("b", &b), ("a", &a)],
        &[("a", &a)],
        &[("a", &a), ("b", &b), ("c", &c)],
        &[("a", &a), ("b", &b)],
    ];
    let mut kept = 0;
    for (value, list) in lists.iter().enumerate() {
        let store = open_all(list).await;
        assert_eq!(store.status(), Status::Ready);
        // What is there is what was stored last, whatever else is missing.
        kept += if value > 0 {
            count(&store, value as u64 - 1).await
        } else {
            0
        };
        put_all(&store, value as u64).await;
        assert_eq!(count(&store, value as u64).await, 100);
        drop(store);
        let store = open_all(list).await;
        assert_eq!(count(&store, value as u64).await, 100);
    }
    assert!(kept > 50, "{kept}");
}

#[tokio::test]
async fn a_disk_that_is_mounted_elsewhere_keeps_its_name() {
    let disk = SimDisk::new(8 << 20);
    let store = open_all(&[("/cas", &disk)]).await;
    put_all(&store, 1).await;
    drop(store);
    let settings = Settings {
        volumes: vec!["/mnt".into()],
        names: vec!["/cas".into()],
        ..settings()
    };
    let store = open_with(&disk, settings, &TestClock::at(NOW)).await;
    assert_eq!(count(&store, 1).await, 100);
    drop(store);
    // Under another name it is another volume: nothing of before counts.
    let store = open_all(&[("/mnt", &disk)]).await;
    assert_eq!(count(&store, 1).await, 0);
}

#[tokio::test]
async fn a_volume_learns_the_cleans_that_it_missed() {
    let (a, b) = (SimDisk::new(8 << 20), SimDisk::new(8 << 20));
    let store = open_all(&[("a", &a), ("b", &b)]).await;
    put_all(&store, 1).await;
    drop(store);
    // Another process holds b: the store does without it.
    let held = Disk::lock(&b, "lock").unwrap();
    let store = open_all(&[("a", &a), ("b", &b)]).await;
    assert!(matches!(store.status(), Status::WritesFail(_)));
    assert!((20..80).contains(&count(&store, 1).await));
    store.clean("acme", "app").await.unwrap();
    drop(held);
    assert_eq!(store.check().await, Status::Ready);
    assert_eq!(count(&store, 1).await, 0);
    drop(store);
    let store = open_all(&[("a", &a), ("b", &b)]).await;
    assert_eq!(count(&store, 1).await, 0);
}
