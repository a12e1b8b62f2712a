//! The store with its threads, on a disk of this machine.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::{Durability, Status};

/// Waits until the index is complete.
async fn recovered(store: &Store) {
    let recovered = async {
        while !store.is_recovered() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_a_restart() {
    for durability in [Durability::Lazy, Durability::Ack] {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            durability,
            ..Settings::new(vec![folder.path().into()])
        };
        let store = Store::open_with(settings.clone()).await;
        assert_eq!(store.status(), Status::Ready);
        assert_eq!(store.emptied()[0].1, "the disk was empty");
        let tasks: Vec<_> = (0..16_u64)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for number in 0..20 {
                        let name = format!("{task} {number}");
                        let bytes = pattern(task * 100 + number, 1000 * number as usize);
                        put(&store, &name, &bytes).await.unwrap();
                        assert!(get(&store, &name).await.unwrap() == bytes);
                    }
                    put(&store, "contended", &pattern(task, 100)).await.unwrap()
                })
            })
            .collect();
        let mut stored = 0;
        for task in tasks {
            stored += usize::from(task.await.unwrap() == Outcome::Stored);
        }
        assert_eq!(stored, 1);
        put(&store, "large", &pattern(1, 3_000_000)).await.unwrap();
        store.close().await;
        let store = Store::open_with(settings).await;
        assert!(store.emptied().is_empty());
        recovered(&store).await;
        assert_eq!(store.usage().objects, 16 * 20 + 2);
        for task in 0..16 {
            for number in 0..20 {
                let bytes = pattern(task * 100 + number, 1000 * number as usize);
                assert!(get(&store, &format!("{task} {number}")).await.unwrap() == bytes);
            }
        }
        assert!(get(&store, "large").await.unwrap() == pattern(1, 3_000_000));
    }
}

#[tokio::test]
async fn one_process_at_a_time_and_a_folder_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cas");
    let store = Store::open(&root).await;
    assert!(matches!(store.status(), Status::Unusable(reason) if reason.contains("cas")));
    assert!(matches!(
        put(&store, "a", b"").await,
        Err(Error::Unusable { .. })
    ));
    assert!(store.get(&key("a")).await.is_err());
    std::fs::create_dir(&root).unwrap();
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "a", b"bytes").await.unwrap();
    let second = Store::open(&root).await;
    assert!(
        matches!(second.status(), Status::Unusable(reason) if reason.contains("another process"))
    );
    store.close().await;
    assert_eq!(second.check().await, Status::Ready);
    recovered(&second).await;
    assert_eq!(get(&second, "a").await.unwrap(), b"bytes");
}

/// Runs the test of this name in namespaces of its own, where it may mount.
fn in_namespace(test: &str) {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .expect("unshare of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn mount(options: &str, at: &Path) {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at)
        .status();
    assert!(status.unwrap().success(), "mount {options}");
}

#[test]
fn a_full_disk_evicts_and_says_so() {
    in_namespace("tests::real::full_disk_inside");
}

#[tokio::test]
#[ignore = "run by a_full_disk_evicts_and_says_so"]
async fn full_disk_inside() {
    let folder = tempfile::tempdir().unwrap();
    mount("size=64m", folder.path());
    let store = Store::open(folder.path()).await;
    for number in 0..40 {
        put(&store, &format!("{number}"), &pattern(number, 4_000_000))
            .await
            .unwrap();
    }
    let usage = store.usage();
    assert!(usage.counts.evicted > 20 && usage.objects > 5, "{usage:?}");
    let room = rustix::fs::statvfs(folder.path()).unwrap();
    assert!(room.f_bavail * room.f_frsize > 3 << 20);
    let error = put_with(
        &store,
        &key("huge"),
        b"",
        Terms {
            length: Some(80 << 20),
            ..terms()
        },
    )
    .await;
    assert!(matches!(error, Err(Error::Length { .. })));
    let bytes = pattern(7, 70 << 20);
    let error = put(&store, "huge", &bytes).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(matches!(store.status(), Status::WritesFail(reason) if reason.contains("no space")));
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "small", b"small").await.unwrap();
    assert_eq!(get(&store, "small").await.unwrap(), b"small");
}

#[test]
fn a_read_only_disk_serves() {
    in_namespace("tests::real::read_only_disk_inside");
}

#[tokio::test]
#[ignore = "run by a_read_only_disk_serves"]
async fn read_only_disk_inside() {
    let folder = tempfile::tempdir().unwrap();
    mount("size=100m", folder.path());
    let store = Store::open(folder.path()).await;
    put(&store, "a", b"bytes").await.unwrap();
    put(&store, "large", &pattern(1, 2_000_000)).await.unwrap();
    store.close().await;
    mount("remount,ro", folder.path());
    let store = Store::open(folder.path()).await;
    recovered(&store).await;
    assert_eq!(get(&store, "a").await.unwrap(), b"bytes");
    assert_eq!(get(&store, "large").await.unwrap(), pattern(1, 2_000_000));
    let error = put(&store, "b", b"bytes").await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(
        matches!(store.check().await, Status::WritesFail(reason) if reason.contains("read-only"))
    );
    assert!(store.remove(&key("a")).await.is_err());
    mount("remount,rw", folder.path());
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "b", b"bytes").await.unwrap();
    assert_eq!(get(&store, "b").await.unwrap(), b"bytes");
}

#[tokio::test]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path()).await);
    put(&store, "a", b"bytes").await.unwrap();
    let root = folder.path().join(crate::FOLDER);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("segments/00000001.seg")), 0o600);
}

#[tokio::test]
async fn a_dropped_store_ends_by_itself_and_a_closed_one_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    put(&store, "a", b"bytes").await.unwrap();
    drop(store);
    let store = Store::open(folder.path()).await;
    let opened = async {
        while store.check().await != Status::Ready {
            tokio::task::yield_now().await;
        }
    };
    let opened = tokio::time::timeout(Duration::from_secs(60), opened);
    opened.await.unwrap();
    recovered(&store).await;
    assert_eq!(get(&store, "a").await.unwrap(), b"bytes");
    let clone = store.clone();
    store.close().await;
    let refused = clone.get(&key("a")).await.unwrap_err().to_string();
    assert!(refused.contains("the store was closed"), "{refused}");
    // It is free for another process, at once.
    assert_eq!(Store::open(folder.path()).await.status(), Status::Ready);
}
