//! The FAT writer and reader against fsck.fat and mtools.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;

use formats::fat::{self, Limits, Options, Volume};
use formats::gpt::SectorSize;
use formats::tree::{Kind, Tree};
use support::{file, node, noise, ok, tree};

const CLOCK: i64 = 1_795_537_858;

fn options(sector: SectorSize) -> Options {
    Options {
        size: match sector {
            SectorSize::S512 => 128 << 20,
            SectorSize::S4096 => 512 << 20,
        },
        sector,
        label: "ESP".into(),
        volume_id: 0x1234_ABCD,
        clock: CLOCK,
    }
}

fn esp() -> Tree {
    let mut nodes = vec![
        ("/EFI/BOOT/BOOTX64.EFI".to_string(), file(noise(200_000, 1))),
        (
            "/EFI/Linux/larder_1.2.3+3.efi".into(),
            file(noise(14 << 20, 2)),
        ),
        ("/loader/loader.conf".into(), file("timeout 0\n")),
        ("/loader/entries.srel".into(), file("type1\n")),
        ("/loader/credentials".into(), node(Kind::Dir, 0o755)),
        ("/larder/host".into(), file("")),
        (
            "/ä lönger näme thän möst, with spaces.and.dots".into(),
            file("x"),
        ),
        (format!("/{}", "y".repeat(255)), file("y")),
    ];
    for size in [1, 511, 512, 513, 1023, 1024, 1025, 4096] {
        nodes.push((format!("/sizes/{size}.bin"), file(noise(size, size as u64))));
    }
    for n in 0..500 {
        nodes.push((format!("/many/file number {n}.text"), file(format!("{n}"))));
    }
    nodes.push((format!("/deep{}", "/d".repeat(15)), file("deep")));
    tree(nodes)
}

fn write(tree: &Tree, options: &Options) -> (tempfile::TempDir, String, fat::Summary) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esp");
    let out = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    out.set_len(options.size).unwrap();
    let summary = fat::write(tree, options, &out).unwrap();
    let path = path.to_str().unwrap().to_string();
    (folder, path, summary)
}

#[test]
fn fsck_is_content_and_mtools_read_the_same() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let tree = esp();
        let (folder, path, summary) = write(&tree, &options(sector));
        let output = ok("fsck.fat", &["-n", "-v", &path]);
        assert!(output.contains("32 bit entries"), "{output}");
        assert!(!output.contains("rong"), "{output}");
        let copy = folder.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        ok(
            "mcopy",
            &["-s", "-Q", "-i", &path, "::/*", copy.to_str().unwrap()],
        );
        let device = File::open(&path).unwrap();
        let volume = Volume::open(&device, Limits::default()).unwrap();
        assert_eq!(volume.label(), "ESP");
        assert_eq!(volume.volume_id(), 0x1234_ABCD);
        assert_eq!(volume.free_clusters(), summary.free_clusters);
        let listed = volume.list().unwrap();
        assert_eq!(listed.len(), tree.len() - 1);
        for entry in listed {
            let node = tree.get(&entry.path).unwrap();
            let theirs = copy.join(&entry.path[1..]);
            assert_eq!(entry.folder, node.kind == Kind::Dir, "{}", entry.path);
            assert_eq!(theirs.is_dir(), entry.folder, "{}", entry.path);
            if let Some(content) = node.content() {
                assert!(
                    volume.content(&entry).unwrap() == content[..],
                    "{}",
                    entry.path
                );
                // mtools spell what is not ASCII as the locale can.
                if entry.path.is_ascii() {
                    assert!(
                        std::fs::read(theirs).unwrap() == content[..],
                        "{}",
                        entry.path
                    );
                }
            }
        }
    }
}
