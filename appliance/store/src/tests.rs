use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn key(id: &str) -> Key {
    Key {
        kind: Kind::XcodeCas,
        account: "acme".into(),
        project: "app".into(),
        id: id.into(),
    }
}

const TERMS: Terms = Terms {
    limit: 25 << 20,
    length: None,
    sha256: None,
};

/// Bytes of which no two pages are equal.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

async fn upload(store: &Store, id: &str, terms: Terms) -> Box<Upload> {
    match store.put(&key(id), terms).await.unwrap() {
        Begun::Upload(upload) => upload,
        Begun::Exists => panic!("{id} exists"),
    }
}

async fn put(store: &Store, id: &str, bytes: &[u8], terms: Terms) -> Result<Outcome, Error> {
    match store.put(&key(id), terms).await? {
        Begun::Exists => Ok(Outcome::Exists),
        Begun::Upload(mut upload) => {
            for chunk in bytes.chunks(100_000) {
                upload.write(chunk).await?;
            }
            upload.finish().await
        }
    }
}

async fn get(store: &Store, id: &str) -> Option<Vec<u8>> {
    let object = store.get(&key(id)).await.unwrap()?;
    let mut reader = object.read(0..u64::MAX);
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

/// Names below `tmp`.
fn leftovers(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("tmp")).unwrap().count()
}

#[tokio::test]
async fn what_is_put_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    assert_eq!(store.status(), Status::Ready);
    for length in [0, 1, 65_471, 65_472, 65_473, 262_144, 262_145, 3_000_000] {
        let (id, bytes) = (length.to_string(), pattern(length));
        assert_eq!(get(&store, &id).await, None);
        assert!(!store.head(&key(&id)).await.unwrap());
        let terms = Terms {
            length: Some(length as u64),
            ..TERMS
        };
        let outcome = put(&store, &id, &bytes, terms).await.unwrap();
        assert_eq!(outcome, Outcome::Stored);
        assert_eq!(get(&store, &id).await, Some(bytes));
        assert!(store.head(&key(&id)).await.unwrap());
    }
    assert_eq!(leftovers(folder.path()), 0);
    // Another process later.
    drop(store);
    let store = Store::open(folder.path()).await;
    assert_eq!(get(&store, "262145").await, Some(pattern(262_145)));
    assert!(store.remove(&key("262145")).await.unwrap());
    assert!(!store.remove(&key("262145")).await.unwrap());
    assert_eq!(get(&store, "262145").await, None);
}

#[tokio::test]
async fn the_first_writer_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let mut first = upload(&store, "a", TERMS).await;
    let mut second = upload(&store, "a", TERMS).await;
    first.write(b"first").await.unwrap();
    second.write(b"second").await.unwrap();
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(second.finish().await.unwrap(), Outcome::Stored);
    assert_eq!(first.finish().await.unwrap(), Outcome::Exists);
    assert_eq!(get(&store, "a").await.unwrap(), b"second");
    let before = store.get(&key("a")).await.unwrap().unwrap();
    assert!(matches!(
        store.put(&key("a"), TERMS).await.unwrap(),
        Begun::Exists
    ));
    store.remove(&key("a")).await.unwrap();
    put(&store, "a", b"third!", TERMS).await.unwrap();
    let after = store.get(&key("a")).await.unwrap().unwrap();
    assert_ne!(before.version(), after.version());
    // The old one is still whole for whoever had it open.
    let chunk = before.read(0..9).next().await.unwrap().unwrap();
    assert_eq!(&chunk[..], b"second");
}

#[tokio::test]
async fn digests_are_checked_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let bytes = pattern(400_000);
    let right: [u8; 32] = Sha256::digest(&bytes).into();
    let declared = |sha256| Terms {
        sha256: Some(sha256),
        ..TERMS
    };
    let error = put(&store, "a", &bytes, declared([7; 32]))
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("0707") && message.contains(&error::hex(&right)));
    assert_eq!(get(&store, "a").await, None);
    put(&store, "a", &bytes, declared(right)).await.unwrap();
    let object = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(object.sha256(), Some(right));
    put(&store, "b", &bytes, TERMS).await.unwrap();
    let object = store.get(&key("b")).await.unwrap().unwrap();
    assert_eq!(object.sha256(), None);
    assert_eq!(leftovers(folder.path()), 0);
}

#[tokio::test]
async fn lengths_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let terms = Terms {
        limit: 300_000,
        length: None,
        sha256: None,
    };
    let declared = |length| Terms {
        length: Some(length),
        ..terms
    };
    let outcome = put(&store, "a", &pattern(300_001), terms).await;
    assert!(matches!(outcome, Err(Error::TooLarge { limit: 300_000 })));
    let outcome = store.put(&key("a"), declared(300_001)).await;
    assert!(matches!(outcome, Err(Error::TooLarge { limit: 300_000 })));
    let outcome = put(&store, "a", &pattern(299_999), declared(300_000)).await;
    assert!(matches!(
        outcome,
        Err(Error::Length {
            declared: 300_000,
            received: 299_999
        })
    ));
    let outcome = put(&store, "a", &pattern(10), declared(9)).await;
    assert!(matches!(outcome, Err(Error::Length { declared: 9, .. })));
    // One that is given up half-way.
    let mut given_up = upload(&store, "a", declared(300_000)).await;
    given_up.write(&pattern(290_000)).await.unwrap();
    assert_eq!(leftovers(folder.path()), 1);
    drop(given_up);
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(leftovers(folder.path()), 0);
    put(&store, "a", &pattern(300_000), declared(300_000))
        .await
        .unwrap();
}

#[tokio::test]
async fn damage_is_a_miss_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    let place = key("a").place();
    let path = folder
        .path()
        .join("objects")
        .join(&place.folder)
        .join(&place.file);
    for damage in [&b""[..], b"LARDER-1", &[0; 100]] {
        put(&store, "a", b"bytes", TERMS).await.unwrap();
        assert_eq!(get(&store, "a").await.unwrap(), b"bytes");
        std::fs::write(&path, damage).unwrap();
        assert_eq!(get(&store, "a").await, None);
    }
    // Of two that both saw the damage, the faster one wins.
    let mut first = upload(&store, "a", TERMS).await;
    let mut second = upload(&store, "a", TERMS).await;
    first.write(b"1").await.unwrap();
    second.write(b"2").await.unwrap();
    assert_eq!(second.finish().await.unwrap(), Outcome::Stored);
    assert_eq!(first.finish().await.unwrap(), Outcome::Exists);
    assert_eq!(get(&store, "a").await.unwrap(), b"2");
    assert_eq!(leftovers(folder.path()), 0);
}

#[tokio::test]
async fn what_an_interrupted_process_left_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let tmp = folder.path().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    std::fs::write(tmp.join("larder-upload-0"), "half").unwrap();
    std::fs::write(tmp.join("of somebody else"), "").unwrap();
    let store = Store::open(folder.path()).await;
    assert_eq!(leftovers(folder.path()), 1);
    put(&store, "a", b"bytes", TERMS).await.unwrap();
    assert_eq!(leftovers(folder.path()), 1);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).await;
    let second = Store::open(folder.path()).await;
    let Status::Unusable(reason) = second.status() else {
        panic!("two processes");
    };
    assert!(reason.contains("another process holds the store"));
    assert!(second.get(&key("a")).await.is_err());
    drop(first);
    assert_eq!(second.check().await, Status::Ready);
}

#[tokio::test]
async fn a_missing_folder_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cas");
    let store = Store::open(&root).await;
    assert!(matches!(store.status(), Status::Unusable(reason) if reason.contains("cas/objects")));
    assert!(matches!(
        put(&store, "a", b"", TERMS).await,
        Err(Error::Unusable { .. })
    ));
    assert!(matches!(
        store.get(&key("a")).await,
        Err(Error::Unusable { .. })
    ));
    std::fs::create_dir(&root).unwrap();
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "a", b"bytes", TERMS).await.unwrap();
}

#[tokio::test]
async fn files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await;
    put(&store, "a", b"bytes", TERMS).await.unwrap();
    let place = key("a").place();
    let path = folder
        .path()
        .join("objects")
        .join(place.folder)
        .join(place.file);
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), 64 + 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_part_reads_as_the_whole(
        length in prop_oneof![0..200_usize, 65_400..65_600_usize, 260_000..800_000_usize],
        from in 0..900_000_u64,
        to in 0..900_000_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).await;
            let bytes = pattern(length);
            put(&store, "a", &bytes, TERMS).await.unwrap();
            let object = store.get(&key("a")).await.unwrap().unwrap();
            assert_eq!(object.len(), length as u64);
            let mut reader = object.read(from..to);
            let expected = &bytes[length.min(from as usize)..];
            let expected = &expected[..expected.len().min(to.saturating_sub(from) as usize)];
            assert_eq!(reader.remaining(), expected.len() as u64);
            let mut read = Vec::new();
            while let Some(chunk) = reader.next().await.unwrap() {
                assert!(!chunk.is_empty());
                read.extend_from_slice(&chunk);
            }
            assert!(read == expected);
        });
    }
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
fn full_disk() {
    in_namespace("tests::full_disk_inside");
}

#[tokio::test]
#[ignore = "run by full_disk"]
async fn full_disk_inside() {
    let folder = tempfile::tempdir().unwrap();
    mount("size=1m", folder.path());
    let store = Store::open(folder.path()).await;
    put(&store, "small", &pattern(200_000), TERMS)
        .await
        .unwrap();
    let error = put(&store, "large", &pattern(2_000_000), TERMS)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(matches!(store.status(), Status::WritesFail(reason) if reason.contains("no space")));
    assert_eq!(get(&store, "large").await, None);
    assert_eq!(get(&store, "small").await, Some(pattern(200_000)));
    assert_eq!(leftovers(folder.path()), 0);
    // What fits is still taken, and a success is the end of the trouble.
    put(&store, "other", b"small", TERMS).await.unwrap();
    assert_eq!(store.status(), Status::Ready);
    assert_eq!(store.check().await, Status::Ready);
}

#[test]
fn read_only_disk() {
    in_namespace("tests::read_only_disk_inside");
}

#[tokio::test]
#[ignore = "run by read_only_disk"]
async fn read_only_disk_inside() {
    let folder = tempfile::tempdir().unwrap();
    mount("size=10m", folder.path());
    let store = Store::open(folder.path()).await;
    put(&store, "a", b"bytes", TERMS).await.unwrap();
    mount("remount,ro", folder.path());
    let error = put(&store, "b", b"bytes", TERMS).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(matches!(store.check().await, Status::WritesFail(_)));
    assert_eq!(get(&store, "a").await.unwrap(), b"bytes");
    drop(store);
    let store = Store::open(folder.path()).await;
    assert!(matches!(store.status(), Status::WritesFail(reason) if reason.contains("read-only")));
    assert_eq!(get(&store, "a").await.unwrap(), b"bytes");
    assert!(matches!(
        store.put(&key("a"), TERMS).await.unwrap(),
        Begun::Exists
    ));
    let error = put(&store, "b", b"bytes", TERMS).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert!(matches!(
        store.remove(&key("a")).await,
        Err(Error::ReadOnly { .. })
    ));
    mount("remount,rw", folder.path());
    assert_eq!(store.check().await, Status::Ready);
    put(&store, "b", b"bytes", TERMS).await.unwrap();
}
