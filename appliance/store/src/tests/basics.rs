//! What a store does when nothing goes wrong with the disk.

use std::ops::ControlFlow;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::*;
use crate::disk::sim::SimDisk;
use crate::{Existing, OBJECT_LIMIT, Status, Writer};

const ROOM: u64 = 8 << 20;

#[tokio::test]
async fn what_is_put_is_got() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    assert_eq!(store.status(), Status::Ready);
    assert_eq!(get(&store, "a").await, None);
    for (number, length) in [0, 1, 8191, 8192, 8193, 70_000, 200_000]
        .into_iter()
        .enumerate()
    {
        let (name, bytes) = (format!("object {number}"), pattern(number as u64, length));
        assert_eq!(put(&store, &name, &bytes).await.unwrap(), Outcome::Stored);
        assert_eq!(get(&store, &name).await.unwrap(), bytes);
        assert_eq!(put(&store, &name, b"other").await.unwrap(), Outcome::Exists);
        assert_eq!(get(&store, &name).await.unwrap(), bytes);
        let info = store.head(&key(&name)).await.unwrap().unwrap();
        assert_eq!(info.length, length as u64);
        assert_eq!(info.key.key(), Some(key(&name)));
    }
    assert_eq!(store.usage().objects, 7);
    drop(store);
    let store = open(&disk).await;
    assert_eq!(store.usage().objects, 7);
    for (number, length) in [0, 1, 8191, 8192, 8193, 70_000, 200_000]
        .into_iter()
        .enumerate()
    {
        let read = get(&store, &format!("object {number}")).await;
        assert_eq!(read.unwrap(), pattern(number as u64, length));
    }
    let mut seen = 0;
    let each = |_| {
        seen += 1;
        ControlFlow::Continue(())
    };
    store.scan(each).unwrap();
    assert_eq!(seen, 7);
}

#[tokio::test]
async fn parts_read_as_the_whole() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    let bytes = pattern(1, 300_000);
    put(&store, "large", &bytes).await.unwrap();
    put(&store, "small", &bytes[..8000]).await.unwrap();
    for (name, length) in [("large", 300_000_usize), ("small", 8000)] {
        for range in [
            0..1,
            0..300_000,
            65_535..65_537,
            65_536..131_072,
            7999..8000,
            5..5,
            900_000..u64::MAX,
        ] {
            let object = store.get(&key(name)).await.unwrap().unwrap();
            let mut reader = object.read(range.clone());
            let (from, to) = (
                length.min(range.start as usize),
                length.min(range.end as usize),
            );
            assert_eq!(reader.remaining(), (to - from) as u64);
            let mut read = Vec::new();
            while let Some(chunk) = reader.next().await.unwrap() {
                read.extend_from_slice(&chunk);
            }
            assert!(read == bytes[from..to], "{name} {range:?}");
        }
    }
}

#[tokio::test]
async fn terms_are_kept_to() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    let bytes = pattern(1, 20_000);
    let with = |length, sha256| Terms {
        limit: 20_000,
        length,
        sha256,
        ..Terms::default()
    };
    let key = key("a");
    for length in [100, 20_000] {
        let bytes = &bytes[..length];
        let right: [u8; 32] = Sha256::digest(bytes).into();
        let outcome = put_with(
            &store,
            &key,
            bytes,
            with(
                Some(length as u64 + 1)
                    .filter(|l| *l <= 20_000)
                    .or(Some(19_999)),
                None,
            ),
        )
        .await;
        assert!(matches!(outcome, Err(Error::Length { .. })), "{outcome:?}");
        let outcome = put_with(&store, &key, bytes, with(None, Some([1; 32]))).await;
        assert!(matches!(outcome, Err(Error::Digest { .. })));
        let outcome = put_with(&store, &key, &pattern(1, 20_001), with(None, None)).await;
        assert!(matches!(outcome, Err(Error::TooLarge { limit: 20_000 })));
        let outcome = put_with(&store, &key, bytes, with(Some(20_001), None)).await;
        assert!(matches!(outcome, Err(Error::TooLarge { limit: 20_000 })));
        assert_eq!(read(&store, &key).await, None);
        assert_eq!(
            disk.paths()
                .iter()
                .filter(|path| path.starts_with("large/"))
                .count(),
            0
        );
        put_with(&store, &key, bytes, with(Some(length as u64), Some(right)))
            .await
            .unwrap();
        let object = store.get(&key).await.unwrap().unwrap();
        assert_eq!(object.sha256(), Some(right));
        assert!(store.remove(&key).await.unwrap());
    }
    // 2 GiB and one byte, whatever the caller allows.
    let outcome = store
        .put(
            &key,
            Terms {
                length: Some(OBJECT_LIMIT + 1),
                limit: u64::MAX,
                ..Terms::default()
            },
        )
        .await;
    assert!(matches!(
        outcome,
        Err(Error::TooLarge {
            limit: OBJECT_LIMIT
        })
    ));
    let long = super::key(&"x".repeat(4097));
    assert!(matches!(
        store.put(&long, terms()).await,
        Err(Error::Key { length: 4113 })
    ));
    let longest = super::key(&"x".repeat(4096 - 16));
    put_with(&store, &longest, b"bytes", terms()).await.unwrap();
    assert_eq!(read(&store, &longest).await.unwrap(), b"bytes");
    let note = Terms {
        note: vec![0; 1025],
        ..terms()
    };
    assert!(matches!(
        store.put(&key, note).await,
        Err(Error::TooLong { .. })
    ));
    // Clean-up after all that: the index holds only the longest.
    assert_eq!(store.usage().objects, 1);
}

#[tokio::test]
async fn existing_objects_stay_or_go() {
    let store = open(&SimDisk::new(ROOM)).await;
    let with = |existing, note: &[u8]| Terms {
        existing,
        note: note.to_vec(),
        ..terms()
    };
    let key = key("a");
    let put = async |bytes: &[u8], terms| put_with(&store, &key, bytes, terms).await.unwrap();
    assert_eq!(put(b"1", with(Existing::Keep, b"")).await, Outcome::Stored);
    assert_eq!(
        put(b"2", with(Existing::ReplaceUntagged, b"tag")).await,
        Outcome::Stored
    );
    assert_eq!(read(&store, &key).await.unwrap(), b"2");
    assert_eq!(
        put(b"3", with(Existing::ReplaceUntagged, b"tag")).await,
        Outcome::Exists
    );
    assert_eq!(
        put(b"4", with(Existing::Replace, b"")).await,
        Outcome::Stored
    );
    assert_eq!(read(&store, &key).await.unwrap(), b"4");
    // Of two writers of one key the faster one wins.
    let Begun::Upload(mut slow) = store.put(&super::key("b"), terms()).await.unwrap() else {
        panic!("exists")
    };
    slow.write(&pattern(3, 20_000)).await.unwrap();
    super::put(&store, "b", b"fast").await.unwrap();
    assert_eq!(slow.finish().await.unwrap(), Outcome::Exists);
    assert_eq!(get(&store, "b").await.unwrap(), b"fast");
}

#[tokio::test]
async fn a_clean_forgets_a_project_for_good() {
    let disk = SimDisk::new(ROOM);
    let clock = TestClock::at(NOW);
    let store = open_with(&disk, settings(), &clock).await;
    put(&store, "a", b"old").await.unwrap();
    let other = Key {
        project: "other".into(),
        ..key("a")
    };
    put_with(&store, &other, b"stays", terms()).await.unwrap();
    let Begun::Upload(mut early) = store.put(&key("b"), terms()).await.unwrap() else {
        panic!("exists")
    };
    store.clean("acme", "app").await.unwrap();
    // A clock that is set back makes no difference.
    clock.set(NOW - 1_000_000);
    early.write(b"too late").await.unwrap();
    assert!(matches!(early.finish().await, Err(Error::Cleaned)));
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(put(&store, "a", b"new").await.unwrap(), Outcome::Stored);
    store.clean("acme", "app").await.unwrap();
    assert_eq!(get(&store, "a").await, None);
    put(&store, "c", b"newest").await.unwrap();
    for damage in ["", "cleans.a", "cleans.b"] {
        if !damage.is_empty() {
            disk.damage(damage, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
        let disk = disk.killed();
        let store = open_with(&disk, settings(), &clock).await;
        assert_eq!(get(&store, "a").await, None, "{damage}");
        assert_eq!(get(&store, "c").await.unwrap(), b"newest");
        assert_eq!(read(&store, &other).await.unwrap(), b"stays");
        let mut scanned = 0;
        store
            .scan(|_| {
                scanned += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(scanned, 2);
        if !damage.is_empty() {
            // The next clean repairs the damaged copy; until then the other one serves.
            store.clean("acme", "unrelated").await.unwrap();
            drop(store);
            break;
        }
    }
}

#[tokio::test]
async fn entries_go_with_the_objects_that_they_name() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    let entry = Key {
        kind: Kind::KeyValue,
        ..key("entry")
    };
    let naming = Terms {
        names: vec![key("x"), key("y")],
        existing: Existing::Replace,
        ..terms()
    };
    put(&store, "x", b"1").await.unwrap();
    put(&store, "y", &pattern(1, 30_000)).await.unwrap();
    put_with(&store, &entry, b"x y", naming.clone())
        .await
        .unwrap();
    assert_eq!(read(&store, &entry).await.unwrap(), b"x y");
    store.remove(&key("y")).await.unwrap();
    assert_eq!(read(&store, &entry).await, None);
    assert_eq!(store.usage().counts.cascaded, 1);
    put(&store, "y", b"2").await.unwrap();
    // It was dropped, not hidden.
    assert_eq!(read(&store, &entry).await, None);
    put_with(&store, &entry, b"x y", naming).await.unwrap();
    assert_eq!(read(&store, &entry).await.unwrap(), b"x y");
    let foreign = Terms {
        names: vec![Key {
            project: "other".into(),
            ..key("x")
        }],
        ..terms()
    };
    assert!(matches!(
        store.put(&entry, foreign).await,
        Err(Error::ForeignName)
    ));
}

#[tokio::test]
async fn entries_that_nobody_uses_expire() {
    let clock = TestClock::at(NOW);
    let day = Duration::from_secs(24 * 60 * 60);
    let store = open_with(&SimDisk::new(ROOM), settings(), &clock).await;
    let entry = |name: &str| Key {
        kind: Kind::KeyValue,
        ..key(name)
    };
    for name in ["used", "unused"] {
        put_with(&store, &entry(name), b"1", terms()).await.unwrap();
    }
    put(&store, "object", b"1").await.unwrap();
    for _ in 0..5 {
        clock.pass(10 * day);
        for volume in store.volumes() {
            volume.advance(0);
        }
        assert!(read(&store, &entry("used")).await.is_some());
    }
    assert_eq!(read(&store, &entry("unused")).await, None);
    assert!(get(&store, "object").await.is_some());
    assert_eq!(store.usage().counts.expired, 1);
}

#[tokio::test]
async fn records_keep_who_wrote_them() {
    let disk = SimDisk::new(ROOM);
    let writer = Writer {
        fingerprint: [7; 8],
        subject: "ci".into(),
        request: "r-1".into(),
    };
    {
        let store = open(&disk).await;
        let terms = Terms {
            writer: writer.clone(),
            note: b"note".to_vec(),
            ..terms()
        };
        put_with(&store, &key("a"), b"bytes", terms).await.unwrap();
    }
    let store = open(&disk).await;
    let info = store.head(&key("a")).await.unwrap().unwrap();
    assert_eq!(
        (info.writer, info.time, &info.note[..]),
        (writer, NOW, &b"note"[..])
    );
    assert_eq!(
        store.get(&key("b")).await.unwrap().map(|o| o.content()),
        None
    );
}

#[tokio::test]
async fn a_digest_declared_at_the_end_is_checked() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    let bytes = pattern(3, 200_000);
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    for (name, declared, right) in [("wrong", [7; 32], false), ("right", digest, true)] {
        let Begun::Upload(mut upload) = store.put(&key(name), terms()).await.unwrap() else {
            panic!("{name} is there already");
        };
        upload.compute_sha256();
        upload.write(&bytes).await.unwrap();
        upload.declare_sha256(declared);
        let outcome = upload.finish().await;
        assert_eq!(outcome.is_ok(), right, "{outcome:?}");
        let kept = store.get(&key(name)).await.unwrap();
        assert_eq!(
            kept.and_then(|object| object.sha256()),
            right.then_some(digest)
        );
    }
}

#[tokio::test]
async fn what_waits_is_read_as_it_was_written() {
    let disk = SimDisk::new(ROOM);
    let store = open(&disk).await;
    let bytes = pattern(4, 600_000);
    let mut scratch = store.scratch(&key("waits"), 600_000).await.unwrap();
    assert!(scratch.read(0).await.unwrap().is_empty());
    for piece in bytes.chunks(7000) {
        scratch.write(piece).await.unwrap();
    }
    assert_eq!(scratch.len(), 600_000);
    let mut read = Vec::new();
    loop {
        let piece = scratch.read(read.len() as u64).await.unwrap();
        if piece.is_empty() {
            break;
        }
        read.extend_from_slice(&piece);
    }
    assert_eq!(read, bytes);
}
