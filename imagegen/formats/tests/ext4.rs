//! The ext4 writer against e2fsck, debugfs and ext4-view.

mod support;

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use formats::ext4::{self, Options, Summary};
use formats::tree::{Kind, Tree};
use support::{file, node, noise, ok, tree};
use uuid::Uuid;

const CLOCK: i64 = 1_760_000_000;

fn options() -> Options {
    Options {
        uuid: Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
        hash_seed: Uuid::from_u128(0xfedc_ba98_7654_3210_fedc_ba98_7654_3210),
        label: "larder-root".into(),
        clock: CLOCK,
        max_bytes: u64::MAX,
    }
}

struct Image {
    _folder: tempfile::TempDir,
    path: PathBuf,
    summary: Summary,
}

fn build(tree: &Tree) -> Image {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let out = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let summary = ext4::write(tree, &options(), &out).unwrap();
    out.set_len(summary.bytes()).unwrap();
    Image {
        _folder: folder,
        path,
        summary,
    }
}

impl Image {
    fn check(&self) -> &Self {
        let path = self.path.to_str().unwrap();
        let output = ok("e2fsck", &["-fn", path]);
        // Remarks that do not count as errors are not wanted either.
        assert!(!output.to_lowercase().contains("optimize"), "{output}");
        self
    }
}

/// One of everything.
fn zoo() -> Tree {
    let mut nodes = vec![
        ("/dev/null".to_string(), node(Kind::CharDevice(1, 3), 0o666)),
        (
            "/dev/big".into(),
            node(Kind::BlockDevice(259, 70_000), 0o660),
        ),
        ("/dev/pipe".into(), node(Kind::Fifo, 0o600)),
        (
            "/usr/bin/sudo".into(),
            node(Kind::File(noise(5000, 1)), 0o4755),
        ),
        ("/empty".into(), file("")),
        ("/tmp".into(), node(Kind::Dir, 0o1777)),
    ];
    for len in [1, 4095, 4096, 4097, 300_000] {
        nodes.push((format!("/size/{len}"), file(noise(len, len as u64))));
    }
    for len in [1, 59, 60, 61, 200, 4095] {
        nodes.push((
            format!("/link/{len}"),
            node(Kind::Symlink("x".repeat(len)), 0o777),
        ));
    }
    for n in 0..3000 {
        nodes.push((
            format!("/many/a name of some length {n}"),
            file(format!("{n}")),
        ));
    }
    nodes.push((format!("/long/{}", "n".repeat(255)), file("long")));
    nodes.push((format!("/deep{}", "/d".repeat(200)), file("deep")));
    // Holes: at the start, between, at the end; with four extents, five, and two tree levels.
    for (name, blocks) in [("four", 8usize), ("five", 9), ("wide", 6000), ("end", 3)] {
        let mut data = vec![0; blocks * 4096 + 17];
        for block in (0..blocks).filter(|b| b % 2 == 1) {
            data[block * 4096 + block % 4096] = 7;
        }
        nodes.push((format!("/sparse/{name}"), file(data)));
    }
    nodes.push(("/sparse/all".into(), file(vec![0; 1 << 20])));
    let mut owner = file("owner");
    (owner.uid, owner.gid, owner.mtime) = (100_000, 70_000, CLOCK + 1000);
    nodes.push(("/owner".into(), owner));
    let mut old = file("old");
    old.mtime = -86_400;
    nodes.push(("/old".into(), old));
    let mut capable = file(noise(10, 3));
    capable.xattrs.insert(
        "security.capability".into(),
        b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
    );
    nodes.push(("/capable".into(), capable));
    let mut labelled = node(Kind::Dir, 0o755);
    for n in 0..30 {
        labelled.xattrs.insert(
            format!("user.number{n}"),
            vec![b'a' + n; usize::from(n) * 3],
        );
    }
    labelled.xattrs.insert(
        "security.selinux".into(),
        b"system_u:object_r:bin_t:s0\0".to_vec(),
    );
    labelled.xattrs.insert("user.big".into(), vec![1; 1500]);
    labelled.xattrs.insert("trusted.x".into(), b"".to_vec());
    nodes.push(("/labelled".into(), labelled));
    nodes.push((
        "/a-hard".into(),
        node(Kind::Hardlink("/z-target".into()), 0),
    ));
    nodes.push((
        "/b/hard".into(),
        node(Kind::Hardlink("/z-target".into()), 0),
    ));
    nodes.push(("/z-target".into(), file("target")));
    tree(nodes)
}

#[test]
fn e2fsck_is_content_with_one_of_everything() {
    let image = build(&zoo());
    image.check();
    assert_eq!(
        std::fs::metadata(&image.path).unwrap().len(),
        image.summary.bytes()
    );
}

#[test]
fn e2fsck_is_content_with_an_empty_tree() {
    let image = build(&tree(vec![]));
    image.check();
    // Superblock, descriptors, two bitmaps, one block of inodes, two folders.
    assert_eq!(image.summary.blocks, 7);
}

#[test]
fn several_groups_and_files_across_their_borders() {
    let mut nodes = vec![];
    for n in 0..3 {
        nodes.push((format!("/file{n}"), file(noise(60 << 20, n))));
    }
    let image = build(&tree(nodes));
    image.check();
    assert!(image.summary.blocks > 32768);
}

#[test]
fn a_pristine_file_system_is_empty_and_writable() {
    for size in [64 << 10, 16 << 20, 64 << 20, 300 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let out = File::create_new(&path).unwrap();
        let options = Options {
            label: ext4::PRISTINE_LABEL.into(),
            ..options()
        };
        let summary = ext4::write_pristine(size, &options, &out).unwrap();
        out.set_len(size).unwrap();
        assert_eq!(summary.bytes(), size);
        assert!(summary.data.bytes() <= 200 << 10, "{:?}", summary.data);
        let path = path.to_str().unwrap();
        ok("e2fsck", &["-fn", path]);
        // Repairing finds nothing to repair, and a file can be written.
        ok("e2fsck", &["-fp", path]);
        ok("debugfs", &["-w", "-R", "mkdir /new", path]);
        ok("e2fsck", &["-fn", path]);
        let text = ok("dumpe2fs", &["-h", path]);
        assert!(text.contains("larder-pristine"), "{text}");
    }
    let _ = Bytes::new();
}
