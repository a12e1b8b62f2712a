//! What a flash that went through leaves.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use formats::gpt::{self, Disks, Role, SectorSize, Table};
use formats::region::Region;

use super::super::Outcome;
use super::super::image::esp_tree;
use super::compose::{Bench, flash, image, ok};
use crate::image::Esp;
use crate::layout::{LARGE_DISK, STATE_LARGE, STATE_SMALL};

/// The table of a disk, which must be without fault.
fn table(disk: &Path, sector: SectorSize) -> Table {
    let table = gpt::read(&File::open(disk).unwrap(), Some(sector)).unwrap();
    assert_eq!(table.defects, []);
    table
}

/// The first bytes of a partition.
fn head(disk: &Path, start: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(disk)
        .unwrap()
        .read_exact_at(&mut bytes, start)
        .unwrap();
    bytes
}

#[test]
fn disks_of_all_sizes_and_both_sectors_get_their_layout() {
    let bench = Bench::new("1.2.3");
    let source = table(&bench.path("larder.raw"), SectorSize::S512);
    let image_size = std::fs::metadata(bench.path("larder.raw")).unwrap().len();
    let small_4096 = image_size + (384 << 20);
    for (sector, size, host) in [
        (SectorSize::S512, image_size, "one"),
        (SectorSize::S4096, small_4096, "one"),
        (SectorSize::S512, LARGE_DISK - 512, "one"),
        (SectorSize::S512, LARGE_DISK, "two"),
        (SectorSize::S4096, LARGE_DISK, "one"),
        // What disks of 500 GB really have.
        (SectorSize::S512, 500_107_862_016, "one"),
        (SectorSize::S4096, 500_107_862_016, "two"),
    ] {
        let mut args = bench.args(host, "disk");
        args.size = Some(size);
        args.sector_size = Some(sector);
        let said = flash(&args).unwrap();
        assert_eq!(said.outcome, Outcome::Written, "{said:?}");
        let disk = &args.disk;
        let found = table(disk, sector);
        assert_eq!(std::fs::metadata(disk).unwrap().len(), size);
        assert!(std::fs::metadata(disk).unwrap().blocks() * 512 < 8 << 20);

        let sizes: Vec<u64> = found.partitions().iter().map(|p| p.size >> 20).collect();
        let state = if size >= LARGE_DISK {
            STATE_LARGE
        } else {
            STATE_SMALL
        } >> 20;
        let esp = if sector == SectorSize::S512 { 128 } else { 512 };
        let mut want = vec![1, esp, 512, 8, 512, 8, state];
        let used: u64 = want.iter().sum();
        if host == "one" {
            // All but the MiB before and what the backup table takes of the last one.
            want.push(((size - (sector.bytes() + 16384)) >> 20) - used - 1);
        }
        assert_eq!(sizes, want, "{sector:?} {size}");
        for (role, entry) in Role::ALL.into_iter().zip(found.partitions()) {
            let before = &source.partitions()[role as usize];
            assert_eq!(
                (&entry.label, entry.type_guid),
                (&before.label, before.type_guid)
            );
            let sealed = matches!(role, Role::RootA | Role::RootAVerity);
            assert_eq!(entry.guid == before.guid, sealed, "{}", entry.label);
            if !matches!(role, Role::Esp) {
                let (from, to) = (before.start, entry.start);
                let image = head(
                    &bench.path("larder.raw"),
                    from,
                    if role == Role::Bios { 1 << 20 } else { 3 << 20 },
                );
                assert!(image == head(disk, to, image.len()), "{}", entry.label);
            }
        }
        assert_ne!(found.header.disk_guid, source.header.disk_guid);
        check_esp(&bench, disk, sector, host);
        let checks = crate::verify::check(&crate::image::Image::open(disk).unwrap(), None);
        let failed = checks
            .iter()
            .filter(|it| it.outcome == crate::verify::Outcome::Fail);
        // The boot images of these tests hold no kernel.
        let failed: Vec<_> = failed.filter(|it| it.part != "ESP").collect();
        assert!(failed.is_empty(), "{failed:?}");
        if sector == SectorSize::S512 {
            let words = ok("sgdisk", &["-v", disk.to_str().unwrap()]);
            assert!(words.contains("No problems found"), "{words}");
        }
        std::fs::remove_file(disk).unwrap();
    }
}

/// The ESP is the image's and the host's name, and clean to fsck.fat.
fn check_esp(bench: &Bench, disk: &Path, sector: SectorSize, host: &str) {
    let files = |path: &Path, sector| {
        let table = table(path, sector);
        let file = File::open(path).unwrap();
        let esp = table.by_label("ESP").unwrap();
        esp_tree(&Esp::read(&Region::new(&file, esp.start, esp.size)).unwrap()).unwrap()
    };
    let mut esp = files(disk, sector);
    let name = esp.get("/larder/host").unwrap().content().unwrap().clone();
    assert_eq!(name, format!("{host}\n"));
    assert_eq!(esp.remove("/larder"), 2);
    assert!(
        esp.iter()
            .eq(files(&bench.path("larder.raw"), SectorSize::S512).iter())
    );
    let entry = table(disk, sector).by_label("ESP").unwrap().clone();
    let alone = bench.path("esp");
    qemu_tests::disk::extract(disk, entry.start..entry.end(), &alone).unwrap();
    ok("fsck.fat", &["-n", alone.to_str().unwrap()]);
    std::fs::remove_file(alone).unwrap();
}

#[test]
fn two_machines_share_no_identity() {
    let bench = Bench::new("1");
    let mut guids = std::collections::BTreeSet::new();
    for disk in ["a", "b"] {
        let mut args = bench.args("one", disk);
        args.size = Some(3 << 30);
        flash(&args).unwrap();
        let table = table(&args.disk, SectorSize::S512);
        guids.insert(table.header.disk_guid);
        guids.extend(table.partitions().iter().map(|entry| entry.guid));
    }
    // Root and its tree are the same ones.
    assert_eq!(guids.len(), 2 * 9 - 2);
}

#[test]
fn nothing_of_what_was_there_shows_through() {
    let bench = Bench::new("1");
    let mut args = bench.args("one", "disk");
    let file = File::create_new(&args.disk).unwrap();
    file.set_len(3 << 30).unwrap();
    // Wherever something of the image may lie, and both ends.
    for mib in (0..3072).step_by(16).chain(0..8) {
        file.write_all_at(&[0xA5; 8192], (mib << 20) + 4096)
            .unwrap();
    }
    file.write_all_at(&[0xA5; 1 << 20], (3 << 30) - (1 << 20))
        .unwrap();
    args.wipe = true;
    assert_eq!(flash(&args).unwrap().outcome, Outcome::Written);
    let fresh = bench.args("one", "fresh");
    flash(&super::FlashArgs {
        size: Some(3 << 30),
        ..fresh.clone()
    })
    .unwrap();
    let (used, new) = (
        table(&args.disk, SectorSize::S512),
        table(&fresh.disk, SectorSize::S512),
    );
    for (one, other) in used.partitions().iter().zip(new.partitions()) {
        let length = match &*one.label {
            "ESP" => continue,
            _ => (1 << 20).min(one.size as usize),
        };
        for start in [0, one.size - length as u64] {
            let same = head(&args.disk, one.start + start, length)
                == head(&fresh.disk, other.start + start, length);
            assert!(same, "{} at {start}", one.label);
        }
    }
    let esp = used.by_label("ESP").unwrap();
    let mut bytes = vec![0; esp.size as usize];
    file.read_exact_at(&mut bytes, esp.start).unwrap();
    assert!(!bytes.windows(16).any(|window| window == [0xA5; 16]));
    check_esp(&bench, &args.disk, SectorSize::S512, "one");
}

#[test]
fn a_compressed_image_and_its_manifest() {
    let bench = Bench::new("1");
    let raw = File::open(bench.path("larder.raw")).unwrap();
    let packed = bench.path("larder.raw.zst");
    let mut encoder = zstd::Encoder::new(File::create(&packed).unwrap(), 1).unwrap();
    std::io::copy(&mut raw.take(u64::MAX), &mut encoder).unwrap();
    encoder.finish().unwrap();
    let mut args = bench.args("one", "disk");
    args.image = packed.clone();
    args.size = Some(3 << 30);
    args.dry_run = true;
    let said = flash(&args).unwrap();
    assert_eq!(said.outcome, Outcome::Planned);
    assert!(said.plan.contains("no manifest beside it"), "{}", said.plan);
    assert!(!args.disk.exists());

    bench.manifest("larder.raw.zst", |manifest| {
        manifest.outputs[0].sha256 = packages::Digest([0; 32]);
    });
    let words = super::compose::error(&args);
    assert!(words.contains("is damaged, or not the image"), "{words}");
    bench.manifest("larder.raw.zst", |manifest| {
        manifest.parts[2].sha256 = packages::Digest([0; 32]);
    });
    let words = super::compose::error(&args);
    assert!(words.contains("the SHA-256 of root-a is"), "{words}");
    bench.manifest("larder.raw.zst", |manifest| manifest.size += 512);
    let words = super::compose::error(&args);
    assert!(words.contains("differ"), "{words}");
    bench.manifest("larder.raw.zst", |_| {});
    args.dry_run = false;
    let said = flash(&args).unwrap();
    assert_eq!(said.outcome, Outcome::Written);
    assert!(said.plan.contains("larder.manifest.json"), "{}", said.plan);
    table(&args.disk, SectorSize::S512);
}

#[test]
fn an_image_for_two_disks_does_for_a_host_with_two() {
    let bench = Bench::new("1");
    let path = bench.path("two.raw");
    image(&path, "1", Disks::Two);
    let mut args = bench.args("two", "disk");
    args.image = path.clone();
    args.size = Some(3 << 30);
    assert_eq!(flash(&args).unwrap().outcome, Outcome::Written);
    assert_eq!(table(&args.disk, SectorSize::S512).partitions().len(), 7);
    let mut args = bench.args("one", "other");
    args.image = path;
    args.size = Some(3 << 30);
    let words = super::compose::error(&args);
    assert!(words.contains("build an image without --host"), "{words}");
}

#[test]
fn a_flash_goes_over_an_interrupted_one_and_asks_before_it_takes_a_whole_one() {
    let bench = Bench::new("1");
    let mut args = bench.args("one", "disk");
    args.size = Some(3 << 30);
    flash(&args).unwrap();
    args.size = None;
    let words = super::compose::refused(&args);
    assert!(
        words.contains("holds a Larder that was never started") && words.contains("--wipe"),
        "{words}"
    );
    // Once it was started, there may be artifacts.
    let cas = table(&args.disk, SectorSize::S512)
        .by_label("cas")
        .unwrap()
        .start;
    let file = File::options().write(true).open(&args.disk).unwrap();
    file.write_all_at(b"larder-cas\0\0\0\0\0\0", cas + 1024 + 0x78)
        .unwrap();
    let words = super::compose::refused(&args);
    assert!(
        words.contains("all artifacts in it would be lost"),
        "{words}"
    );
    // Interrupted: everything but the tables.
    file.write_all_at(&[0; 1 << 20], 0).unwrap();
    file.write_all_at(&[0; 1 << 20], (3 << 30) - (1 << 20))
        .unwrap();
    assert_eq!(flash(&args).unwrap().outcome, Outcome::Written);
    args.wipe = true;
    assert_eq!(flash(&args).unwrap().outcome, Outcome::Written);
}
