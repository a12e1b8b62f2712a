//! A disk that fails: a typed error each, and nothing half-written.

use super::*;
use crate::disk::Flush;
use crate::disk::sim::{Cut, SimDisk};
use crate::{Durability, Existing, Status};

#[tokio::test]
async fn a_failed_fsync_withdraws_and_is_never_repeated() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    put(&store, "durable", b"1").await.unwrap();
    let volume = store.volumes().next().unwrap();
    volume.sync(Flush::Records).unwrap();
    let replace = Terms {
        existing: Existing::Replace,
        ..terms()
    };
    put_with(&store, &key("durable"), b"2", replace)
        .await
        .unwrap();
    put(&store, "new", b"3").await.unwrap();
    assert_eq!(get(&store, "new").await.unwrap(), b"3");
    disk.fail_flush(Flush::Records);
    assert!(volume.sync(Flush::Records).is_err());
    // The version before is back; what was new is not there.
    assert_eq!(get(&store, "durable").await.unwrap(), b"1");
    assert_eq!(get(&store, "new").await, None);
    let counts = store.usage().counts;
    assert_eq!((counts.withdrawn, counts.sync_errors), (2, 1));
    assert!(matches!(store.status(), Status::WritesFail(_)));
    // The next write goes to another segment, and what it stores survives.
    put(&store, "new", b"4").await.unwrap();
    volume.sync(Flush::Records).unwrap();
    assert_eq!(store.status(), Status::Ready);
    let store = open(&disk.cut(disk.now(), Cut::Flushed)).await;
    assert_eq!(get(&store, "new").await.unwrap(), b"4");
    assert_eq!(get(&store, "durable").await.unwrap(), b"1");
}

#[tokio::test]
async fn a_large_object_is_back_when_its_replacement_fails() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    let volume = store.volumes().next().unwrap();
    let replace = Terms {
        existing: Existing::Replace,
        ..terms()
    };
    let old = pattern(1, 300_000);
    put(&store, "large", &old).await.unwrap();
    volume.sync(Flush::Records).unwrap();
    // Twice, by one large and one small: the first of them is nobody's "before" in the end.
    for new in [pattern(2, 200_000), pattern(3, 8)] {
        put_with(&store, &key("large"), &new, replace.clone())
            .await
            .unwrap();
    }
    disk.fail_flush(Flush::Records);
    assert!(volume.sync(Flush::Records).is_err());
    assert_eq!(get(&store, "large").await.unwrap(), old);
    // What the next sync removes is not the file of what is back.
    put(&store, "other", b"1").await.unwrap();
    volume.sync(Flush::Records).unwrap();
    assert_eq!(get(&store, "large").await.unwrap(), old);
    let files = disk.paths();
    let files = files.iter().filter(|path| path.starts_with("large/"));
    assert_eq!(files.count(), 1);
    let store = open(&disk.cut(disk.now(), Cut::Flushed)).await;
    assert_eq!(get(&store, "large").await.unwrap(), old);
}

#[tokio::test]
async fn a_removal_whose_fsync_fails_can_be_tried_again() {
    for length in [8, 300_000] {
        let disk = SimDisk::new(16 << 20);
        let store = open(&disk).await;
        let bytes = pattern(1, length);
        put(&store, "a", &bytes).await.unwrap();
        store
            .volumes()
            .next()
            .unwrap()
            .sync(Flush::Records)
            .unwrap();
        disk.fail_flush(Flush::Records);
        assert!(store.remove(&key("a")).await.unwrap_err().is_disk());
        assert_eq!(get(&store, "a").await.unwrap(), bytes);
        assert!(store.remove(&key("a")).await.unwrap());
        assert_eq!(get(&store, "a").await, None);
        let store = open(&disk.cut(disk.now(), Cut::Flushed)).await;
        assert_eq!(get(&store, "a").await, None);
    }
}

#[tokio::test]
async fn a_start_whose_first_fsync_fails_believes_the_disk() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    put(&store, "durable", b"1").await.unwrap();
    store
        .volumes()
        .next()
        .unwrap()
        .sync(Flush::Records)
        .unwrap();
    put(&store, "in memory", b"2").await.unwrap();
    // Killed: the second record is in the page cache only, until the fsync of the next start loses it.
    drop(store);
    disk.fail_flush(Flush::Records);
    let store = open(&disk).await;
    assert_eq!(get(&store, "durable").await.unwrap(), b"1");
    assert_eq!(get(&store, "in memory").await, None);
}

#[tokio::test]
async fn acknowledged_puts_fail_with_their_fsync() {
    let disk = SimDisk::new(16 << 20);
    let settings = Settings {
        durability: Durability::Ack,
        ..settings()
    };
    let store = open_with(&disk, settings, &TestClock::at(NOW)).await;
    for round in 0..3 {
        disk.fail_flush(Flush::Records);
        assert!(
            put(&store, "a", b"1").await.unwrap_err().is_disk(),
            "{round}"
        );
        assert_eq!(get(&store, "a").await, None);
    }
    // Three in a row: read-only, until a check shows that it works again.
    assert!(matches!(
        put(&store, "a", b"1").await,
        Err(Error::Unusable { .. })
    ));
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "a", b"2").await.unwrap();
    let store = open(&disk.cut(disk.now(), Cut::Flushed)).await;
    assert_eq!(get(&store, "a").await.unwrap(), b"2");
}

#[tokio::test]
async fn a_write_error_leaves_nothing() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    put(&store, "a", b"1").await.unwrap();
    for length in [1000, 50_000] {
        disk.fail_write(0);
        let error = put(&store, "b", &pattern(1, length)).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Io {
                    action: "write" | "write in",
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(get(&store, "b").await, None);
    }
    put(&store, "b", b"2").await.unwrap();
    assert_eq!(get(&store, "a").await.unwrap(), b"1");
    assert_eq!(get(&store, "b").await.unwrap(), b"2");
    assert!(disk.paths().iter().all(|path| !path.starts_with("large/")));
}

#[tokio::test]
async fn no_room_and_no_inodes() {
    let disk = SimDisk::new(1 << 20);
    let store = open(&disk).await;
    put(&store, "a", b"1").await.unwrap();
    let error = put(&store, "huge", &pattern(1, 2 << 20)).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(get(&store, "huge").await, None);
    put(&store, "b", b"2").await.unwrap();
    // Without inodes large objects fail; small ones need none until a segment is full.
    disk.set_max_files(disk.paths().len() as u64);
    let error = put(&store, "large", &pattern(1, 20_000)).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    put(&store, "c", b"3").await.unwrap();
    disk.set_max_files(1 << 20);
    put(&store, "large", &pattern(1, 20_000)).await.unwrap();
    // A disk that got smaller: eviction, then an honest error.
    disk.set_capacity(40_000);
    let mut errors = 0;
    for number in 0..40 {
        errors += usize::from(
            put(&store, &format!("{number}"), &pattern(number, 4000))
                .await
                .is_err(),
        );
    }
    assert!(errors > 0);
    disk.set_capacity(16 << 20);
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "d", b"4").await.unwrap();
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_serves() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    put(&store, "a", b"1").await.unwrap();
    disk.set_read_only(true);
    assert!(matches!(
        put(&store, "b", b"2").await,
        Err(Error::ReadOnly { .. })
    ));
    assert!(store.remove(&key("a")).await.is_err());
    assert!(store.clean("acme", "other").await.is_err());
    assert_eq!(get(&store, "a").await.unwrap(), b"1");
    assert!(matches!(store.check().await, Status::WritesFail(_)));
    disk.set_read_only(false);
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "b", b"2").await.unwrap();
}

#[tokio::test]
async fn what_was_withdrawn_and_then_removed_does_not_come_back() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    put(&store, "a", b"1").await.unwrap();
    disk.fail_flush(Flush::Records);
    let volume = store.volumes().next().unwrap();
    assert!(volume.sync(Flush::Records).is_err());
    assert_eq!(get(&store, "a").await, None);
    // What a process that is killed leaves: the record is in memory, whatever the fsync said.
    let left = open(&disk.killed()).await;
    assert_eq!(get(&left, "a").await.unwrap(), b"1");
    // There is nothing to remove, and a removal all the same.
    assert!(!store.remove(&key("a")).await.unwrap());
    assert_eq!(get(&open(&disk.killed()).await, "a").await, None);
    let cut = disk.cut(disk.now(), Cut::All);
    assert_eq!(get(&open(&cut).await, "a").await, None);
    // Once the segment is gone, nothing is left that could.
    assert!(volume.may_return(crate::key::tag(&key("a").hash(), 0)));
    while volume.evict_one(true).unwrap() {}
    assert!(!volume.may_return(crate::key::tag(&key("a").hash(), 0)));
}
