use formats::gpt::{Disks, Role, SectorSize};
use imagegen::image::Image;
use imagegen::manifest::Manifest;
use imagegen::verify::{Checks, Outcome, check};

use crate::compose::{Composed, PRISTINE, Spec, compose, compose_on};

fn checks(image: &Composed) -> Checks {
    let manifest = Manifest::load(&image.manifest_path()).unwrap();
    check(&Image::open(&image.path).unwrap(), Some(&manifest))
}

fn without_manifest(image: &Composed) -> Checks {
    check(&Image::open(&image.path).unwrap(), None)
}

/// The parts in which something is wrong.
fn failed(checks: &Checks) -> Vec<String> {
    let bad = checks.iter().filter(|c| c.outcome == Outcome::Fail);
    let mut parts: Vec<_> = bad.map(|check| check.part.clone()).collect();
    parts.dedup();
    parts
}

#[test]
fn a_whole_image() {
    let image = compose(&Spec::default());
    insta::assert_snapshot!(checks(&image).text());
    insta::assert_snapshot!(without_manifest(&image).text());
}

#[test]
fn other_layouts_are_as_whole() {
    for (disks, sector) in [
        (Disks::Two, SectorSize::S512),
        (Disks::One, SectorSize::S4096),
        (Disks::Two, SectorSize::S4096),
    ] {
        let image = compose_on(&Spec::default(), disks, sector, "larder", 0);
        let checks = checks(&image);
        assert_eq!(checks.failures(), 0, "{}", checks.text());
    }
}

#[test]
fn one_flipped_byte_in_each_part_is_found_and_named() {
    let image = compose(&Spec::default());
    let end = image.layout.disk_size;
    let start = |role| image.start(role);
    for (what, offset, part) in [
        ("boot code before the table", 100, "gpt"),
        ("protective MBR", 446 + 4, "gpt"),
        ("primary header", 512 + 60, "gpt"),
        ("reserved bytes of the header's sector", 512 + 200, "gpt"),
        ("primary entries", 1024 + 3 * 128 + 20, "gpt"),
        ("between table and first partition", 100_000, "gap"),
        ("bios", start(Role::Bios) + 4711, "bios"),
        ("boot sector of the ESP", start(Role::Esp) + 80, "ESP"),
        ("allocation table", start(Role::Esp) + 16_384 + 9, "ESP"),
        ("file on the ESP", start(Role::Esp) + 1_200_000, "ESP"),
        (
            "free cluster of the ESP",
            start(Role::Esp) + 100_000_000,
            "ESP",
        ),
        (
            "superblock of the root",
            start(Role::RootA) + 1024 + 0x30,
            "root-a",
        ),
        (
            "last block of the root",
            start(Role::RootA) + image.root_bytes - 9,
            "root-a",
        ),
        (
            "behind the root",
            start(Role::RootA) + image.root_bytes + 9,
            "root-a",
        ),
        (
            "superblock of the tree",
            start(Role::RootAVerity) + 90,
            "root-a-verity",
        ),
        (
            "salt of the tree",
            start(Role::RootAVerity) + 4096 + 7,
            "root-a-verity",
        ),
        (
            "last hash",
            start(Role::RootAVerity) + image.tree_bytes - 4000,
            "root-a-verity",
        ),
        (
            "behind the tree",
            start(Role::RootAVerity) + image.tree_bytes,
            "root-a-verity",
        ),
        ("root-b", start(Role::RootB) + 5_000_000, "root-b"),
        (
            "root-b-verity",
            start(Role::RootBVerity) + 1,
            "root-b-verity",
        ),
        (
            "superblock of state",
            start(Role::State) + 1024 + 0x78,
            "state",
        ),
        ("data of state", start(Role::State) + PRISTINE - 1, "state"),
        (
            "behind state's file system",
            start(Role::State) + (900 << 20),
            "state",
        ),
        ("inode of cas", start(Role::Cas) + 4 * 4096 + 300, "cas"),
        ("behind the last partition", end - 40_000, "gap"),
        ("backup entries", end - 512 - 16_384 + 20, "gpt-backup"),
        ("backup header", end - 512 + 60, "gpt-backup"),
        ("last byte", end - 1, "gpt-backup"),
    ] {
        image.flip(offset);
        let checks = checks(&image);
        let found = failed(&checks);
        assert!(
            found.iter().any(|name| name == part),
            "{what}, byte {offset}: {}",
            checks.text()
        );
        image.flip(offset);
    }
    assert_eq!(checks(&image).failures(), 0);
}

#[test]
fn without_a_manifest_all_that_has_a_checksum_is_checked() {
    let image = compose(&Spec::default());
    let end = image.layout.disk_size;
    let start = |role| image.start(role);
    for (what, offset, part) in [
        ("primary header", 512 + 60, "gpt"),
        ("backup entries", end - 512 - 16_384 + 20, "gpt"),
        ("allocation table", start(Role::Esp) + 16_384 + 9, "ESP"),
        ("root", start(Role::RootA) + 8192, "root-a"),
        ("tree", start(Role::RootAVerity) + 5000, "root-a-verity"),
        (
            "superblock of state",
            start(Role::State) + 1024 + 0x78,
            "state",
        ),
        ("superblock of cas", start(Role::Cas) + 1024 + 0x78, "cas"),
    ] {
        image.flip(offset);
        let checks = without_manifest(&image);
        assert!(
            failed(&checks).iter().any(|name| name == part),
            "{what}, byte {offset}: {}",
            checks.text()
        );
        image.flip(offset);
    }
}

#[test]
fn errors_name_part_and_offset() {
    let image = compose(&Spec::default());
    for offset in [
        512 + 60,
        image.start(Role::Esp) + 16_384 + 9,
        image.start(Role::RootA) + 70_000,
        image.start(Role::RootAVerity) + 5000,
        image.start(Role::State) + 1024 + 0x78,
    ] {
        image.flip(offset);
    }
    let text = checks(&image).text();
    let bad: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("FAIL") || line.starts_with("NOT"))
        .collect();
    insta::assert_snapshot!(bad.join("\n"));
}

#[test]
fn a_disk_with_guids_and_a_size_of_its_own_is_whole() {
    let built = compose(&Spec::default());
    let disk = compose_on(
        &Spec::default(),
        Disks::One,
        SectorSize::S512,
        "machine",
        3 << 30,
    );
    // The file systems have other UUIDs here, so root hash and tree are other ones: it is checked
    // without a manifest first, then against that of an equal root.
    let checks = without_manifest(&disk);
    assert_eq!(checks.failures(), 0, "{}", checks.text());
    let checks = check(&Image::open(&disk.path).unwrap(), Some(&built.manifest));
    assert_eq!(failed(&checks), ["manifest"]);
    let checks = check(&Image::open(&disk.path).unwrap(), Some(&disk.manifest));
    assert_eq!(checks.failures(), 0, "{}", checks.text());
    assert!(checks.text().contains("GUID or size of its own"));
    disk.flip(disk.start(Role::RootA) + 70_000);
    let checks = check(&Image::open(&disk.path).unwrap(), Some(&disk.manifest));
    assert_eq!(failed(&checks), ["root-a"]);
    disk.flip(disk.start(Role::RootA) + 70_000);

    // Enlarged since: the backup table is no longer at the end.
    disk.open().set_len(4 << 30).unwrap();
    let checks = check(&Image::open(&disk.path).unwrap(), Some(&disk.manifest));
    assert_eq!(checks.failures(), 0, "{}", checks.text());
    assert!(checks.text().contains("it has grown"), "{}", checks.text());
}

#[test]
fn a_manifest_that_tells_something_else_is_found() {
    let image = compose(&Spec::default());
    let opened = Image::open(&image.path).unwrap();
    let other = packages::Digest([1; 32]);
    type Change = fn(&mut Manifest, packages::Digest);
    let changes: [(&str, Change); 16] = [
        ("id", |m, _| m.id = "other".into()),
        ("version", |m, _| m.version = "1.2.4".into()),
        ("kernel", |m, _| m.kernel = "6.12".into()),
        ("cmdline", |m, _| m.cmdline.push_str(" debug")),
        ("root hash", |m, other| m.root_hash = other),
        ("PCR 11", |m, other| m.pcr11 = other),
        ("part's hash", |m, other| m.parts[3].sha256 = other),
        ("part's place", |m, _| m.parts[3].offset += 4096),
        ("part's end", |m, _| m.parts[3].content = u64::MAX),
        ("ESP's hash", |m, other| m.esp[0].sha256 = other),
        ("ESP's file", |m, _| m.esp[0].path = "/EFI/x".into()),
        ("binary", |m, other| m.binaries[0].sha256 = other),
        ("package", |m, _| m.packages[0].version = "0".into()),
        ("missing file", |m, _| _ = m.files.pop()),
        ("file's mode", |m, _| m.files[1].mode.0 ^= 0o111),
        ("file's owner", |m, _| m.files[1].uid += 1),
    ];
    for (what, change) in changes {
        let mut manifest = image.manifest.clone();
        change(&mut manifest, other);
        let checks = check(&opened, Some(&manifest));
        assert_ne!(checks.failures(), 0, "{what}: {}", checks.text());
    }
}

#[test]
fn an_image_that_is_cut_off_is_not_whole() {
    let image = compose(&Spec::default());
    let size = image.layout.disk_size;
    for size in [size - 512, size - (64 << 20), 300 << 20] {
        image.open().set_len(size).unwrap();
        let checks = checks(&image);
        assert!(
            failed(&checks).iter().any(|part| part == "gpt"),
            "{size}: {}",
            checks.text()
        );
    }
}

#[test]
fn what_is_no_image_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty.raw"), []).unwrap();
    std::fs::write(path("text.raw"), "hello").unwrap();
    std::fs::write(path("zeros.raw"), vec![0; 1 << 20]).unwrap();
    std::fs::write(path("larder.raw.zst"), [0x28, 0xB5, 0x2F, 0xFD, 0]).unwrap();
    // A disk of somebody else's: all types wiped from the table by hand.
    let words: Vec<_> = [
        "missing.raw",
        "",
        "empty.raw",
        "text.raw",
        "zeros.raw",
        "larder.raw.zst",
    ]
    .into_iter()
    .map(|name| format!("{:#}", Image::open(&path(name)).unwrap_err()))
    .collect();
    insta::assert_snapshot!(crate::compose::without_folder(
        &words.join("\n"),
        folder.path()
    ));
}
