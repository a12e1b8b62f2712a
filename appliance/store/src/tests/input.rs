//! Bad input that no other test has: a typed error each, and nothing half-written.

use super::*;
use crate::OBJECT_LIMIT;
use crate::disk::Flush;
use crate::disk::sim::SimDisk;

/// An upload that has begun.
async fn begin(store: &Store, hash: &str, terms: Terms) -> Box<crate::Upload> {
    match store.put(&key(hash), terms).await.unwrap() {
        Begun::Upload(upload) => upload,
        Begun::Exists => panic!("{hash} is there"),
    }
}

#[tokio::test]
async fn a_body_that_stops_leaves_nothing() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    let (names, used) = (disk.paths(), disk.used());
    for length in [0, 1000, 50_000] {
        let mut upload = begin(&store, "a", terms()).await;
        upload.write(&pattern(1, length)).await.unwrap();
        drop(upload);
        assert_eq!(get(&store, "a").await, None);
    }
    // Fewer bytes than declared, for one in the log and one with a file of its own.
    for length in [1000, 50_000] {
        let declared = Terms {
            length: Some(length + 1),
            ..terms()
        };
        let mut upload = begin(&store, "a", declared).await;
        upload.write(&pattern(1, length as usize)).await.unwrap();
        let error = upload.finish().await.unwrap_err();
        assert!(
            matches!(error, Error::Length { declared, received } if declared == length + 1 && received == length),
            "{error}"
        );
    }
    assert_eq!((disk.paths(), disk.used()), (names, used));
    assert_eq!(store.usage().objects, 0);
    // The empty object is one.
    put(&store, "empty", b"").await.unwrap();
    assert_eq!(get(&store, "empty").await.unwrap(), b"");
}

#[tokio::test]
async fn one_byte_more_than_the_limit_is_refused_as_it_comes() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    for limit in [1000, 50_000] {
        let mut upload = begin(&store, "a", Terms { limit, ..terms() }).await;
        upload.write(&pattern(1, limit as usize)).await.unwrap();
        let error = upload.write(b"x").await.unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { limit: said } if said == limit),
            "{error}"
        );
    }
    // Whatever the caller allows, 2 GiB are the most.
    for (length, fits) in [(OBJECT_LIMIT, true), (OBJECT_LIMIT + 1, false)] {
        let terms = Terms {
            length: Some(length),
            limit: u64::MAX,
            ..terms()
        };
        let begun = store.put(&key("huge"), terms).await;
        assert_eq!(begun.is_ok(), fits);
        assert!(matches!(
            (fits, begun),
            (true, Ok(_))
                | (
                    false,
                    Err(Error::TooLarge {
                        limit: OBJECT_LIMIT
                    })
                )
        ));
    }
    assert_eq!(store.usage().objects, 0);
}

#[tokio::test]
async fn two_writers_of_one_key() {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    for length in [1000, 50_000] {
        let name = format!("{length}");
        let (mut one, mut two) = (
            begin(&store, &name, terms()).await,
            begin(&store, &name, terms()).await,
        );
        one.write(&pattern(1, length)).await.unwrap();
        two.write(&pattern(2, length)).await.unwrap();
        assert_eq!(two.finish().await.unwrap(), Outcome::Stored);
        assert_eq!(one.finish().await.unwrap(), Outcome::Exists);
        assert!(get(&store, &name).await.unwrap() == pattern(2, length));
    }
    let large = disk.paths().into_iter();
    assert_eq!(large.filter(|path| path.starts_with("large/")).count(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_loses_nothing() {
    let disk = SimDisk::new(2 << 20);
    let clock = TestClock::at(NOW);
    let store = open_with(&disk, settings(), &clock).await;
    put(&store, "before", b"1").await.unwrap();
    store.clean("acme", "other").await.unwrap();
    clock.set(NOW - 365 * 24 * 60 * 60 * 1000);
    put(&store, "after", b"2").await.unwrap();
    let replace = Terms {
        existing: crate::Existing::Replace,
        ..terms()
    };
    put_with(&store, &key("before"), b"3", replace)
        .await
        .unwrap();
    assert!(store.hold(&key("after"), NOW - 364 * 24 * 60 * 60 * 1000));
    // A clean of the past still is the latest.
    let other = Key {
        project: "other".into(),
        ..key("a")
    };
    put_with(&store, &other, b"4", terms()).await.unwrap();
    store.clean("acme", "other").await.unwrap();
    assert_eq!(read(&store, &other).await, None);
    // Eviction and a checkpoint go on as if nothing were.
    for number in 0..600 {
        put(&store, &format!("{number}"), &pattern(number, 4000))
            .await
            .unwrap();
        assert_eq!(get(&store, "before").await.unwrap(), b"3");
    }
    assert!(store.usage().counts.evicted > 0);
    for volume in store.volumes() {
        volume.sync(Flush::Records).unwrap();
        volume.checkpoint().unwrap();
    }
    drop(store);
    let store = open_with(&disk, settings(), &clock).await;
    assert_eq!(get(&store, "before").await.unwrap(), b"3");
    assert_eq!(get(&store, "after").await.unwrap(), b"2");
    assert_eq!(read(&store, &other).await, None);
}
