//! The ext4 writer against e2fsck, debugfs and ext4-view.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use formats::ext4::{self, Error, Limits, Options, ReadError, Reader, Summary};
use formats::region::{Memory, ReadAt, Region, WriteAt};
use formats::tree::{Kind, Tree};
use proptest::prelude::*;
use support::{file, node, noise, ok, tool, tree};
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
            // ext4-view refuses targets with components that no name can equal.
            node(
                Kind::Symlink("../etc".repeat(len)[..len].to_string()),
                0o777,
            ),
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
}

/// What a reader must give back for `tree`: times clamped, the first name of a hard-linked file
/// with the content, `lost+found`, no origins.
fn as_read(tree: &Tree) -> Tree {
    let mut out = Tree::new();
    let mut lost = node(Kind::Dir, 0o700);
    lost.mtime = CLOCK;
    out.insert("/lost+found", lost).unwrap();
    let mut first = std::collections::HashMap::new();
    for (path, node) in tree.iter() {
        let own = match &node.kind {
            Kind::Hardlink(target) => target.as_str(),
            _ => path,
        };
        let mut node = tree.get(own).unwrap().clone();
        node.mtime = node.mtime.min(CLOCK);
        match first.get(own) {
            Some(name) => node.kind = Kind::Hardlink(String::clone(name)),
            None => _ = first.insert(own, path.to_string()),
        }
        out.insert(path, node).unwrap();
    }
    out.retain(|_, node| {
        node.origin.clear();
        true
    });
    out
}

/// Compares without printing contents.
fn assert_same(ours: &Tree, theirs: &Tree) {
    let paths = |tree: &Tree| tree.iter().map(|(p, _)| p.to_string()).collect::<Vec<_>>();
    assert_eq!(paths(ours), paths(theirs));
    for (path, node) in ours.iter() {
        let other = theirs.get(path).unwrap();
        if node != other {
            let show = |node: &formats::tree::Node| {
                let mut node = node.clone();
                if let Kind::File(data) = &node.kind {
                    node.kind = Kind::Symlink(format!("{} bytes", data.len()));
                }
                node
            };
            panic!("{path}: {:?} is not {:?}", show(node), show(other));
        }
    }
}

fn read_back(device: &dyn ReadAt) -> Tree {
    Reader::open(device, Limits::default())
        .unwrap()
        .tree()
        .unwrap()
}

#[test]
fn the_reader_gives_the_tree_back() {
    let tree = zoo();
    let image = build(&tree);
    let device = File::open(&image.path).unwrap();
    assert_same(&read_back(&device), &as_read(&tree));
    let reader = Reader::open(&device, Limits::default()).unwrap();
    let info = reader.info();
    assert_eq!(info.label, "larder-root");
    assert_eq!(
        (info.uuid, info.hash_seed),
        (options().uuid, options().hash_seed)
    );
    assert_eq!((info.made, info.blocks), (CLOCK, image.summary.blocks));
    assert_eq!(
        (info.free_blocks, info.sealed, info.journal),
        (0, true, false)
    );
    assert_eq!(info.inodes - info.free_inodes, image.summary.inodes);
    assert!(info.free_inodes < 16);
}

#[test]
fn ext4_view_reads_the_same() {
    let mut tree = zoo();
    // It knows no time before 1970; our reader and debugfs do.
    tree.remove("/old");
    let image = build(&tree);
    let view = ext4_view::Ext4::load(Box::new(File::open(&image.path).unwrap())).unwrap();
    assert_eq!(view.label().to_str().unwrap(), "larder-root");
    let mut count = 0;
    for (path, node) in as_read(&tree).iter() {
        let meta = view.symlink_metadata(path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (node.uid, node.gid), "{path}");
        assert_eq!(meta.mode() & 0o7777, node.mode, "{path}");
        match &node.kind {
            Kind::File(data) => assert!(view.read(path).unwrap() == data[..], "{path}"),
            Kind::Symlink(to) => {
                assert_eq!(view.read_link(path).unwrap().to_str().unwrap(), to);
            }
            Kind::Dir => count += view.read_dir(path).unwrap().count() - 2,
            Kind::Hardlink(to) => {
                assert!(view.read(path).unwrap() == view.read(to.as_str()).unwrap())
            }
            _ => {}
        }
    }
    assert_eq!(count, tree.len());
}

#[test]
fn debugfs_shows_what_was_given() {
    let image = build(&zoo());
    let path = image.path.to_str().unwrap();
    let ask = |request: &str| ok("debugfs", &["-R", request, path]);
    let text = ask("stat /dev/big");
    assert!(text.contains("Type: block special"), "{text}");
    assert!(
        text.contains("(New-style) Device major/minor number: 259:70000"),
        "{text}"
    );
    let text = ask("stat /owner");
    assert!(
        text.contains("User: 100000   Group: 70000 ") && text.contains(" Size: 5"),
        "{text}"
    );
    let text = ask("stat /z-target");
    assert!(text.contains("Links: 3 "), "{text}");
    let text = ask("stat /usr/bin/sudo");
    assert!(text.contains("Mode:  04755"), "{text}");
    let text = ask("ea_list /capable");
    assert!(
        text.contains("security.capability (20) = 01 00 00 02 00 04"),
        "{text}"
    );
    let text = ask("ea_list /labelled");
    assert_eq!(
        text.lines().filter(|line| line.contains(" (")).count(),
        33,
        "{text}"
    );
    assert!(
        text.contains("security.selinux (27) = \"system_u:object_r:bin_t:s0\\000\""),
        "{text}"
    );
    let text = ok("dumpe2fs", &["-h", path]);
    for line in [
        "Filesystem volume name:   larder-root",
        "Filesystem UUID:          12345678-9abc-def0-1234-56789abcdef0",
        "Free blocks:              0",
        "Reserved block count:     0",
        "Inode size:\t          256",
        "Directory Hash Seed:      fedcba98-7654-3210-fedc-ba9876543210",
        "Filesystem state:         clean",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    let features = text
        .lines()
        .find(|l| l.starts_with("Filesystem features:"))
        .unwrap();
    let mut features: Vec<_> = features.split_whitespace().skip(2).collect();
    features.sort_unstable();
    assert_eq!(
        features.join(" "),
        "64bit dir_nlink ext_attr extent extra_isize filetype flex_bg huge_file large_file \
         metadata_csum read-only sparse_super2"
    );
}

#[test]
fn images_of_mke2fs_are_read() {
    let tree = zoo();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("tree");
    std::fs::create_dir(&source).unwrap();
    // What anybody may make.
    let mut expected = Tree::new();
    for (path, node) in tree.iter() {
        let at = source.join(&path[1..]);
        match &node.kind {
            Kind::Dir if path == "/" => {}
            Kind::Dir => std::fs::create_dir(at).unwrap(),
            Kind::File(data) => std::fs::write(at, data).unwrap(),
            Kind::Symlink(to) if to.len() < 4095 => std::os::unix::fs::symlink(to, at).unwrap(),
            _ => continue,
        }
        expected.insert(path, node.clone()).unwrap();
    }
    for features in [
        "64bit,metadata_csum",
        "^64bit,^metadata_csum",
        "metadata_csum_seed",
    ] {
        let path = folder.path().join("image");
        let path = path.to_str().unwrap();
        ok(
            "mke2fs",
            &[
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                features,
                "-L",
                "made",
                "-d",
                source.to_str().unwrap(),
                path,
                "128M",
            ],
        );
        let device = File::open(path).unwrap();
        let reader = Reader::open(&device, Limits::default()).unwrap();
        assert_eq!(reader.info().label, "made");
        assert!(reader.info().journal && !reader.info().sealed);
        let read = reader.tree().unwrap();
        assert_eq!(read.len(), expected.len() + 1);
        for (path, node) in expected.iter() {
            assert!(
                read.get(path).unwrap().kind == node.kind,
                "{features}: {path}"
            );
        }
    }
}

#[test]
fn two_writes_are_one_image_and_a_partition_is_not_left() {
    let tree = zoo();
    let (first, second) = (build(&tree), build(&tree));
    assert_eq!(first.summary, second.summary);
    let bytes = std::fs::read(&first.path).unwrap();
    assert!(bytes == std::fs::read(&second.path).unwrap());
    // What the summary calls a hole is zero.
    for (at, block) in bytes.chunks(4096).enumerate() {
        let at = at as u64 * 4096;
        assert!(first.summary.data.touches(at..at + 4096) || block.iter().all(|&b| b == 0));
    }

    let disk = Memory::new(0);
    let size = first.summary.bytes();
    let exact = Options {
        max_bytes: size,
        ..options()
    };
    ext4::write(&tree, &exact, &Region::new(&disk, 1 << 20, size)).unwrap();
    let disk = disk.into_inner();
    assert!(disk[..1 << 20].iter().all(|&b| b == 0));
    assert!(disk[1 << 20..] == bytes[..disk.len() - (1 << 20)]);

    let short = Options {
        max_bytes: size - 1,
        ..options()
    };
    let out = Memory::new(0);
    match ext4::write(&tree, &short, &out) {
        Err(Error::TooBig { needed, limit }) => assert_eq!((needed, limit), (size, size - 1)),
        other => panic!("{other:?}"),
    }
    assert!(out.into_inner().is_empty(), "nothing is half-written");
}

#[test]
fn a_change_in_one_file_leaves_the_blocks_of_the_others() {
    let nodes = |middle: usize| {
        (0..40)
            .map(|n| match n {
                20 => ("/files/20".to_string(), file(noise(middle, 99))),
                n => (format!("/files/{n:02}"), file(noise(300_000, n))),
            })
            .collect::<Vec<_>>()
    };
    let blocks = |middle| {
        let image = build(&tree(nodes(middle)));
        let bytes = std::fs::read(&image.path).unwrap();
        bytes.chunks(4096).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let old: std::collections::HashSet<_> = blocks(4096).into_iter().collect();
    let new = blocks(9000);
    let changed = new.iter().filter(|block| !old.contains(*block)).count();
    // The file itself (its first block is the same), superblock, descriptors, inodes, bitmap.
    assert!(changed <= 10, "{changed} of {}", new.len());
}

#[test]
fn what_ext4_cannot_hold_is_refused_by_name() {
    let refused = |path: &str, node| {
        let tree = tree(vec![(path.to_string(), node)]);
        let out = Memory::new(0);
        let error = ext4::write(&tree, &options(), &out).unwrap_err();
        assert!(out.into_inner().is_empty());
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = format!("{text}: {source}");
        }
        text
    };
    let mut acl = file("");
    acl.xattrs
        .insert("system.posix_acl_access".into(), vec![2, 0, 0, 0]);
    let mut big = file("");
    big.xattrs.insert("user.a".into(), vec![1; 5000]);
    insta::assert_snapshot!(
        [
            refused("/l", node(Kind::Symlink("x".repeat(4096)), 0o777)),
            refused("/e", node(Kind::Symlink(String::new()), 0o777)),
            refused("/d", node(Kind::CharDevice(4096, 0), 0o600)),
            refused("/lost+found", file("")),
            refused("/a", acl),
            refused("/b", big),
            refused("/h", node(Kind::Hardlink("/none".into()), 0o600)),
        ]
        .join("\n"),
        @r#"
    /l is a symlink with a target of 4096 bytes; ext4 holds 1 to 4095, no NUL
    /e is a symlink with a target of 0 bytes; ext4 holds 1 to 4095, no NUL
    /d is device 4096:0, beyond 4095:1048575
    /lost+found is not a folder; e2fsck needs it to be one
    /a: ext4 cannot hold an attribute named "system.posix_acl_access"
    /b: 5020 bytes of attributes do not fit into an inode and one block
    the tree cannot be written as ext4: path "/none" is not an absolute, normalised path
    "#
    );
    assert!(matches!(
        ext4::write(&Tree::new(), &options(), &Memory::new(0)),
        Err(Error::NoRoot)
    ));
    let long = Options {
        label: "seventeen letters".into(),
        ..options()
    };
    assert!(matches!(
        ext4::write(&tree(vec![]), &long, &Memory::new(0)),
        Err(Error::Label(_))
    ));
}

#[test]
fn a_flipped_bit_in_metadata_is_found() {
    let tree = tree(vec![
        ("/dir/file".to_string(), file(noise(10_000, 1))),
        ("/link".into(), node(Kind::Symlink("x".repeat(100)), 0o777)),
    ]);
    let out = Memory::new(0);
    ext4::write(&tree, &options(), &out).unwrap();
    let mut bytes = out.into_inner();
    // Superblock, descriptors, the used inodes, the folders (three blocks of 4 KiB).
    let info = ok_info(&bytes);
    assert_eq!(info.blocks, 12);
    let inodes = 4 * 4096..4 * 4096 + 256 * 14;
    let folders = 5 * 4096..8 * 4096;
    let ranges = [1024..2048, 4096..4160, inodes, folders];
    for at in ranges.into_iter().flat_map(|range| range.step_by(61)) {
        // The reserved inodes are zero and nobody's, but for the root.
        if (4 * 4096..4 * 4096 + 2560).contains(&at) && (at - 4 * 4096) / 256 != 1 {
            continue;
        }
        bytes[at] ^= 0x20;
        let result = Reader::open(&bytes, Limits::default()).and_then(|reader| reader.tree());
        assert!(
            matches!(
                result,
                Err(ReadError::Checksum { .. }
                    | ReadError::Superblock { .. }
                    | ReadError::Feature { .. })
            ),
            "{at}: {result:?}"
        );
        bytes[at] ^= 0x20;
    }
}

fn ok_info(bytes: &Vec<u8>) -> ext4::Info {
    Reader::open(bytes, Limits::default())
        .unwrap()
        .info()
        .clone()
}

#[test]
fn limits_are_kept() {
    let tree = tree(vec![
        ("/a".to_string(), file(noise(10_000, 1))),
        ("/b".into(), file(noise(10_000, 2))),
    ]);
    let out = Memory::new(0);
    ext4::write(&tree, &options(), &out).unwrap();
    let bytes = out.into_inner();
    let read = |entries, bytes_: u64| {
        let limits = Limits {
            entries,
            bytes: bytes_,
        };
        Reader::open(&bytes, limits).unwrap().tree()
    };
    assert!(read(3, 20_000).is_ok());
    assert!(matches!(read(2, 20_000), Err(ReadError::Limit { .. })));
    assert!(matches!(read(3, 19_999), Err(ReadError::Limit { .. })));
}

/// Random small trees.
fn any_tree() -> impl Strategy<Value = Tree> {
    let size = prop_oneof![
        Just(0usize),
        Just(1),
        Just(59),
        Just(4095),
        Just(4096),
        Just(4097),
        0usize..40_000
    ];
    let content = (size, any::<u64>(), any::<u16>()).prop_map(|(size, seed, holes)| {
        let mut data = noise(size, seed).to_vec();
        for (at, block) in data.chunks_mut(4096).enumerate() {
            if holes >> (at % 16) & 1 == 1 {
                block.fill(0);
            }
        }
        Kind::File(Bytes::from(data))
    });
    let kind = prop_oneof![
        4 => content,
        2 => (1usize..300).prop_map(|len| Kind::Symlink("t".repeat(len))),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(a, b)| Kind::CharDevice(a, b)),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(a, b)| Kind::BlockDevice(a, b)),
        1 => Just(Kind::Fifo),
        2 => Just(Kind::Dir),
    ];
    let xattrs = prop::collection::btree_map(
        "(user|security|trusted)\\.[a-z]{1,20}",
        prop::collection::vec(any::<u8>(), 0..200),
        0..4,
    );
    let attributes = (
        0u16..0o10000,
        any::<u32>(),
        any::<u32>(),
        -5_000_000_000i64..20_000_000_000,
    );
    let node = (kind, attributes, xattrs).prop_map(|(kind, (mode, uid, gid, mtime), xattrs)| {
        let mut node = node(kind, mode);
        (node.uid, node.gid, node.mtime, node.xattrs) = (uid, gid, mtime.max(-(1 << 31)), xattrs);
        node
    });
    let path = prop::collection::vec("[a-c]{1,2}|[a-zA-Zäöü .~-]{1,40}|n{200}", 1..5);
    let nodes = prop::collection::vec((path, node), 0..60);
    (
        nodes,
        prop::collection::vec((any::<u8>(), "h[a-z]{3}"), 0..5),
    )
        .prop_map(|(nodes, links)| {
            let mut out = tree(vec![]);
            for (path, node) in nodes {
                // Where a folder should be and something else is, the path is left out.
                let mut parent = String::new();
                let clear = path[..path.len() - 1].iter().all(|part| {
                    parent = format!("{parent}/{part}");
                    if part == "." || part == ".." {
                        return false;
                    }
                    if out.get(&parent).is_none() {
                        return out.insert(&parent, support::node(Kind::Dir, 0o755)).is_ok();
                    }
                    out.get(&parent).unwrap().kind == Kind::Dir
                });
                let full = format!("{parent}/{}", path[path.len() - 1]);
                if clear && out.get(&full).is_none() && !full.starts_with("/lost+found") {
                    let _ = out.insert(full, node);
                }
            }
            let files: Vec<_> = out
                .iter()
                .filter(|(_, node)| matches!(node.kind, Kind::File(_)))
                .map(|(path, _)| path.to_string())
                .collect();
            for (which, name) in links {
                if let Some(target) = files.get(usize::from(which) % files.len().max(1)) {
                    let link = support::node(Kind::Hardlink(target.clone()), 0);
                    let _ = out.add(format!("/{name}"), link);
                }
            }
            out
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_comes_back_and_e2fsck_is_content(tree in any_tree()) {
        let image = build(&tree);
        image.check();
        let device = File::open(&image.path).unwrap();
        assert_same(&read_back(&device), &as_read(&tree));
    }
}

#[test]
fn a_broken_image_does_not_please_e2fsck() {
    // The check itself is checked: a wrong byte in the root folder must show.
    let image = build(&zoo());
    let file = File::options().write(true).open(&image.path).unwrap();
    let bytes = std::fs::read(&image.path).unwrap();
    let needle = b"lost+found";
    let at = bytes
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    file.write_all_at(b"L", at as u64).unwrap();
    let output = tool("e2fsck", &["-fn", image.path.to_str().unwrap()]);
    assert!(!output.status.success());
}
