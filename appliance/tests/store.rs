//! `appliance store`, the program, on good and damaged volumes.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use disk::{Device, ReadAt};
use store::{Begun, Key, Kind, Outcome, Settings, Store, Terms, Writer};

const SEGMENT: &str = "larder-store/segments/00000001.seg";

fn key(hash: &str) -> Key {
    Key {
        kind: Kind::XcodeCas,
        account: "acme".into(),
        project: "app".into(),
        hash: hash.into(),
        ..Key::default()
    }
}

async fn put(store: &Store, hash: &str, bytes: &[u8]) {
    let terms = Terms {
        limit: 1 << 30,
        writer: Writer {
            fingerprint: [7; 8],
            subject: "ci".into(),
            request: "r1".into(),
        },
        ..Terms::default()
    };
    let Begun::Upload(mut upload) = store.put(&key(hash), terms).await.unwrap() else {
        panic!("{hash} is there");
    };
    upload.write(bytes).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Outcome::Stored);
}

async fn open(folder: &Path) -> Store {
    let store = Store::open_with(Settings {
        segment_bytes: Some(4 << 20),
        capacity: Some(64 << 20),
        ..Settings::new(vec![folder.into()])
    })
    .await;
    while !store.is_recovered() {
        tokio::task::yield_now().await;
    }
    store
}

/// Waits for the segment that the store makes ahead.
async fn has_files(folder: &Path, count: usize) {
    while fs::read_dir(folder).unwrap().count() < count {
        tokio::task::yield_now().await;
    }
}

/// Two small objects and a large one, a fourth that was removed, in a sealed segment; two more in one
/// that is not.
async fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    put(&store, "a", b"hello").await;
    put(&store, "b", &[66; 70_000]).await;
    put(&store, "large", &vec![67; 2_000_000]).await;
    put(&store, "removed", b"gone").await;
    assert!(store.remove(&key("removed")).await.unwrap());
    let segments = folder.path().join("larder-store/segments");
    has_files(&segments, 2).await;
    store.close().await;
    let store = open(folder.path()).await;
    put(&store, "later", b"as well").await;
    put(&store, "last", b"indeed").await;
    has_files(&segments, 4).await;
    store.close().await;
    folder
}

/// Runs `appliance store`: whether it succeeded, and what it wrote, without what differs from run to run: the folder,
/// times, numbers of files.
fn run(verb: &str, path: &Path, folder: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_appliance"))
        .args(["store", verb])
        .arg(path)
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text += &String::from_utf8(output.stderr).unwrap();
    let text = text.replace(&folder.display().to_string(), "PATH");
    let words = |line: &str| {
        let words = line.split(' ').map(|word| {
            let number = word.len() == 13 && word.bytes().all(|byte| byte.is_ascii_digit());
            let file = word
                .rsplit_once("/large/")
                .filter(|(_, name)| name.len() >= 16);
            match (number, file) {
                (true, _) => "TIME".to_owned(),
                (_, Some((folder, name))) => format!("{folder}/large/FILE{}", &name[16..]),
                _ => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<String> = text.lines().map(words).collect();
    (output.status.success(), lines.join("\n"))
}

fn change(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_good_volume() {
    let folder = made().await;
    let at = folder.path();
    let run = |verb| run(verb, at, at);
    insta::assert_snapshot!(run("check").1, @"5 objects are right, 0 problems");
    assert!(run("check").0);
    insta::assert_snapshot!(run("stat").1, @r"
    4 segments (2 not sealed), 8459936 bytes, 70896 of them in use
    1 large objects, 2000000 bytes
    7 records, 0 projects cleaned
    xcode-cas acme/app: 5 objects, 2070018 bytes
    ");
    insta::assert_snapshot!(run("dump").1, @r#"
    00000001         64 object  live TIME          5 xcode-cas "acme"/"app"/"a" "ci" "r1"
    00000001        224 object  live TIME      70000 xcode-cas "acme"/"app"/"b" "ci" "r1"
    00000001      70368 object  live TIME    2000000 xcode-cas "acme"/"app"/"large" "ci" "r1"
    00000001      70640 object  dead TIME          4 xcode-cas "acme"/"app"/"removed" "ci" "r1"
    00000001      70800 removal dead TIME          0 xcode-cas "acme"/"app"/"removed" "" ""
    00000003         64 object  live TIME          7 xcode-cas "acme"/"app"/"later" "ci" "r1"
    00000003        224 object  live TIME          6 xcode-cas "acme"/"app"/"last" "ci" "r1"
    "#);
    let root = at.join("larder-store");
    let checkpoints = || ["checkpoint.a", "checkpoint.b"].map(|name| root.join(name).exists());
    assert!(checkpoints().contains(&true));
    insta::assert_snapshot!(run("rebuild-index").1, @"the next start makes the index from the log");
    assert_eq!(checkpoints(), [false, false]);
    // The next start has it all, from the log.
    let store = open(at).await;
    assert_eq!(store.usage().objects, 5);
    // Nobody looks into what is in use.
    let (success, text) = run("check");
    assert!(
        !success && text.contains("another process holds the store"),
        "{text}"
    );
}

#[tokio::test]
async fn a_damaged_volume() {
    let folder = made().await;
    let at = folder.path();
    let root = at.join("larder-store");
    let large = fs::read_dir(root.join("large")).unwrap().next().unwrap();
    change(large.unwrap().path(), |bytes| bytes[1_100_000] ^= 1);
    fs::write(root.join("large/00000000000000aa"), b"nobody's").unwrap();
    change(at.join(SEGMENT), |bytes| {
        let body = bytes.windows(5).position(|five| five == b"hello").unwrap();
        bytes[body] ^= 1;
        // The head of the second.
        let head = bytes.windows(100).position(|all| all == [66; 100]).unwrap();
        bytes[head - 30] ^= 1;
    });
    let segments = fs::read_dir(root.join("segments")).unwrap();
    for segment in segments {
        // In the one that is not sealed.
        change(segment.unwrap().path(), |bytes| {
            if let Some(at) = bytes.windows(7).position(|seven| seven == b"as well") {
                bytes[at] ^= 1;
            }
        });
    }
    fs::write(root.join("segments/00000009.seg"), b"no segment").unwrap();
    let (success, text) = run("check", at, at);
    assert!(!success);
    insta::assert_snapshot!(text, @r#"
    PATH/larder-store/segments/00000009.seg: its header is damaged: it goes at the next start
    PATH/larder-store/segments/00000003.seg at byte 64: no record: what was there is a miss
    PATH/larder-store/segments/00000001.seg at byte 64: xcode-cas "acme"/"app"/"a": the body is damaged: a miss
    PATH/larder-store/segments/00000001.seg at byte 224: its head is damaged: a miss
    PATH/larder-store/segments/00000001.seg at byte 70368: xcode-cas "acme"/"app"/"large": its file is damaged near byte 1048576: transfers break off
    PATH/larder-store/large/FILE: nothing names it: it goes at the next start
    1 objects are right, 6 problems
    error: PATH: 6 problems
    "#);
    insta::assert_snapshot!(run("stat", at, at).1, @r"
    4 segments (2 not sealed), 8459936 bytes, 592 of them in use
    1 large objects, 2000000 bytes
    5 records, 0 projects cleaned
    xcode-cas acme/app: 3 objects, 2000011 bytes
    ");
    // Without its footer it is scanned, and the superblock is missed.
    change(at.join(SEGMENT), |bytes| bytes.truncate(bytes.len() - 10));
    fs::write(root.join("volume"), [7; 8192]).unwrap();
    let (success, text) = run("check", at, at);
    assert!(!success);
    insta::assert_snapshot!(text, @r#"
    PATH/larder-store/volume: no superblock (Damaged): the volume would start empty
    PATH/larder-store/segments/00000009.seg: its header is damaged: it goes at the next start
    PATH/larder-store/segments/00000001.seg: its footer is damaged: it is scanned at the start
    PATH/larder-store/segments/00000001.seg at byte 64: no record: what was there is a miss
    PATH/larder-store/segments/00000003.seg at byte 64: no record: what was there is a miss
    PATH/larder-store/segments/00000001.seg at byte 70368: xcode-cas "acme"/"app"/"large": its file is damaged near byte 1048576: transfers break off
    PATH/larder-store/large/FILE: nothing names it: it goes at the next start
    1 objects are right, 7 problems
    error: PATH: 7 problems
    "#);
}

#[test]
fn what_is_no_volume() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (path, said) in [
        (at.to_owned(), "there is no larder-store in it"),
        (at.join("nothing"), "nothing"),
    ] {
        let (success, text) = run("check", &path, at);
        assert!(!success && text.contains(said), "{text}");
    }
}

/// An image with a partition table, whose partition `cas` holds the volume.
fn image(volume: &Path, image: &Path) {
    let file = fs::File::create(image).unwrap();
    file.set_len(160 << 20).unwrap();
    let mut device = Device::open_rw(image).unwrap();
    let partition = disk::blank::partition(&mut device, None).unwrap();
    let sector = u64::from(device.sector_size());
    let (offset, length) = (partition.first * sector, partition.sectors() * sector);
    drop(device);
    let made = Command::new("mkfs.ext4")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["-q", "-F", "-E", &format!("offset={offset}"), "-d"])
        .arg(volume)
        .arg(image)
        .arg(format!("{}k", length / 1024))
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

#[tokio::test]
async fn the_partition_of_an_image() {
    let folder = made().await;
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("disk.raw");
    image(folder.path(), &path);
    let (success, text) = run("check", &path, outside.path());
    let loops = Command::new("losetup")
        .env("PATH", "/usr/sbin:/sbin")
        .arg("-f")
        .output();
    if rustix::process::geteuid().is_root() && loops.is_ok_and(|output| output.status.success()) {
        assert!(
            success && text.starts_with("5 objects are right, 0 problems"),
            "{text}"
        );
        let before = fs::read(&path).unwrap();
        let (_, text) = run("stat", &path, outside.path());
        assert!(
            text.contains("xcode-cas acme/app: 5 objects, 2070018 bytes"),
            "{text}"
        );
        // Nothing was written.
        assert!(before == fs::read(&path).unwrap());
        assert!(run("rebuild-index", &path, outside.path()).0);
        let (success, text) = run("check", &path, outside.path());
        assert!(success, "{text}");
    } else {
        assert!(!success && text.contains("only root may"), "{text}");
    }
    let blank = outside.path().join("blank");
    fs::write(&blank, vec![0; 1 << 20]).unwrap();
    let (success, text) = run("check", &blank, outside.path());
    assert!(!success && text.contains("cannot be mounted"), "{text}");
}
