//! What goes when room is short, and what stays.

use super::*;
use crate::Status;
use crate::disk::Flush;
use crate::disk::sim::SimDisk;

const ROOM: u64 = 2 << 20;

async fn fill(store: &Store, from: u64, count: u64) {
    for number in from..from + count {
        put(store, &format!("{number}"), &pattern(number, 4000))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_store_stays_in_its_room_and_what_is_read_stays() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    for round in 0..40 {
        fill(&store, round * 50, 50).await;
        assert!(
            get(&store, "0").await.unwrap() == pattern(0, 4000),
            "round {round}"
        );
        let large = format!("large {round}");
        put(&store, &large, &pattern(round, 50_000)).await.unwrap();
        assert!(get(&store, "large 0").await.is_some());
    }
    let usage = store.usage();
    assert!(
        usage.counts.evicted > 1000 && usage.counts.survivors > 2,
        "{usage:?}"
    );
    // What nobody read is gone, what is new is there.
    assert_eq!(get(&store, "1").await, None);
    assert!(get(&store, "1999").await.is_some());
    // The reserve is free, and the accounting is the truth.
    assert!(disk.used() <= ROOM - ROOM / 10, "{}", disk.used());
    let difference = usage.used.abs_diff(disk.used());
    assert!(
        difference < 128 * 1024,
        "{} accounted, {} used",
        usage.used,
        disk.used()
    );
    assert_eq!((usage.reserve, usage.oldest), (ROOM / 10, NOW));
    assert_eq!(store.status(), Status::Ready);
    drop(store);
    let store = open(&disk).await;
    assert_eq!(store.usage().objects, usage.objects);
}

#[tokio::test]
async fn recency_survives_a_kill() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    fill(&store, 0, 300).await;
    for number in 0..10 {
        assert!(get(&store, &format!("{number}")).await.is_some());
    }
    store
        .volumes()
        .for_each(|volume| volume.checkpoint().unwrap());
    drop(store);
    let store = open(&disk).await;
    let epoch = store.volumes().next().unwrap().epoch();
    let slot = |name: &str| {
        let volume = store.volumes().next().unwrap();
        volume
            .index
            .get(crate::key::tag(&key(name).hash(), 0))
            .unwrap()
    };
    assert_eq!(slot("5").last, epoch);
    assert!(slot("50").last < epoch);
    fill(&store, 1000, 200).await;
    assert!(get(&store, "5").await.is_some());
    assert_eq!(get(&store, "50").await, None);
}

#[tokio::test]
async fn pins_count_up_to_their_share() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    let pinned = || Terms {
        pinned: true,
        ..terms()
    };
    for number in 0..20 {
        let name = key(&format!("pinned {number}"));
        put_with(&store, &name, &pattern(number, 4000), pinned())
            .await
            .unwrap();
    }
    fill(&store, 0, 1).await;
    assert!(store.pin(&key("0"), true).await.unwrap());
    fill(&store, 1, 3000).await;
    for number in 0..20 {
        assert!(
            get(&store, &format!("pinned {number}")).await.is_some(),
            "{number}"
        );
    }
    assert!(get(&store, "0").await.is_some());
    assert_eq!(store.usage().counts.pins_broken, 0);
    assert!(store.usage().pinned >= 21 * 4000);
    // One that was mirrored may go.
    assert!(store.pin(&key("0"), false).await.unwrap());
    // A quarter of the room is theirs; more give way.
    for number in 20..1000 {
        let name = key(&format!("pinned {number}"));
        put_with(&store, &name, &pattern(number, 4000), pinned())
            .await
            .unwrap();
    }
    let usage = store.usage();
    assert!(usage.counts.pins_broken > 50, "{usage:?}");
    assert!(usage.pinned > usage.capacity / 8, "{usage:?}");
    fill(&store, 5000, 1000).await;
    assert_eq!(get(&store, "0").await, None);
}

#[tokio::test]
async fn what_is_held_stays_unless_all_is_held() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    fill(&store, 0, 20).await;
    for number in 0..20 {
        assert!(store.hold(&key(&format!("{number}")), NOW + 15 * 60_000));
    }
    fill(&store, 100, 1500).await;
    for number in 0..20 {
        assert!(get(&store, &format!("{number}")).await.is_some());
    }
    // Eviction advances also when everything is held.
    for number in 5000..7000 {
        let name = format!("{number}");
        put(&store, &name, &pattern(number, 4000)).await.unwrap();
        assert!(store.hold(&key(&name), NOW + 15 * 60_000));
    }
    assert!(get(&store, "6999").await.is_some());
}

#[tokio::test]
async fn a_reader_of_a_dying_segment_finishes() {
    let settings = Settings {
        large_from: 1 << 20,
        segment_bytes: Some(1 << 20),
        ..settings()
    };
    let disk = SimDisk::new(32 << 20);
    let store = open_with(&disk, settings, &TestClock::at(NOW)).await;
    // Longer than what is read at once, shorter than what has a file of its own.
    let bytes = pattern(1, 260_000);
    put(&store, "slow", &bytes[..250_000]).await.unwrap();
    let object = store.get(&key("slow")).await.unwrap().unwrap();
    for volume in store.volumes() {
        assert!(volume.evict_one(true).unwrap());
    }
    assert_eq!(get(&store, "slow").await, None);
    let mut reader = object.read(0..u64::MAX);
    let mut read = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert!(read == bytes[..250_000]);
    drop(reader);
    assert_eq!(store.usage().pending, 0);
}

#[tokio::test]
async fn objects_that_are_too_old_go() {
    let clock = TestClock::at(NOW);
    let settings = Settings {
        max_age: Some(Duration::from_secs(3600)),
        ..settings()
    };
    let store = open_with(&SimDisk::new(ROOM), settings, &clock).await;
    fill(&store, 0, 60).await;
    clock.pass(Duration::from_secs(7200));
    fill(&store, 100, 100).await;
    for volume in store.volumes() {
        volume.sync(Flush::Records).unwrap();
        volume.advance(10 << 20);
        volume.evict_aged().unwrap();
    }
    assert_eq!(get(&store, "0").await, None);
    assert!(get(&store, "199").await.is_some());
}
