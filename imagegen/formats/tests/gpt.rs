//! The partition table against sgdisk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;

use formats::gpt::{self, Copy, Defect, Disks, Layout, LayoutError, Request, Role, SectorSize};
use formats::region::{Memory, ReadAt, WriteAt};
use formats::verity::RootHash;
use support::ok;

const MIB: u64 = 1 << 20;

fn request(disk_size: u64, sector: SectorSize, disks: Disks) -> Request {
    Request {
        disk_size,
        sector,
        disks,
        state_size: 64 * MIB,
        cas_min: 64 * MIB,
        seed: "larder".into(),
        version: "1.2.3".into(),
        root_hash: RootHash(std::array::from_fn(|at| at as u8)),
    }
}

/// The smallest layout of a kind.
fn smallest(sector: SectorSize, disks: Disks) -> Layout {
    let size = Layout::minimum_size(&request(0, sector, disks));
    Layout::new(&request(size, sector, disks)).unwrap()
}

fn on_disk(layout: &Layout) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let file = File::create_new(&path).unwrap();
    file.set_len(layout.disk_size).unwrap();
    layout.write(&file).unwrap();
    let path = path.to_str().unwrap().to_string();
    (folder, path)
}

#[test]
fn sgdisk_reads_what_was_laid_out() {
    for disks in [Disks::One, Disks::Two] {
        let layout = smallest(SectorSize::S512, disks);
        let (_folder, path) = on_disk(&layout);
        let output = ok("sgdisk", &["-v", &path]);
        assert!(output.contains("No problems found"), "{output}");
        for partition in &layout.partitions {
            let number = partition.number.to_string();
            let info = ok("sgdisk", &["-i", &number, &path]);
            for line in [
                format!(
                    "Partition GUID code: {:X}",
                    partition.role.type_guid().hyphenated()
                ),
                format!("Partition unique GUID: {:X}", partition.guid.hyphenated()),
                format!("First sector: {} ", partition.start / 512),
                format!("Last sector: {} ", partition.end() / 512 - 1),
                format!("Attribute flags: {:016X}", partition.role.attributes()),
                format!("Partition name: '{}'", partition.label),
            ] {
                assert!(info.contains(&line), "{line:?} is not in {info}");
            }
        }
    }
}

#[test]
fn what_was_laid_out_is_read_back_with_both_sizes_of_sectors() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        for disks in [Disks::One, Disks::Two] {
            let layout = smallest(sector, disks);
            let (_folder, path) = on_disk(&layout);
            let table = gpt::read(&File::open(path).unwrap(), None).unwrap();
            assert_eq!(table.defects, []);
            assert_eq!(table.sector, sector);
            assert_eq!(table.copy, Copy::Primary);
            assert_eq!(table.header.disk_guid, layout.disk_guid);
            assert_eq!(table.partitions().len(), layout.partitions.len());
            for (entry, partition) in table.partitions().iter().zip(&layout.partitions) {
                assert_eq!(entry.number, partition.number);
                assert_eq!(entry.label, partition.label);
                assert_eq!(entry.guid, partition.guid);
                assert_eq!((entry.start, entry.size), (partition.start, partition.size));
                assert_eq!(entry.type_guid, partition.role.type_guid());
                assert_eq!(entry.attributes, partition.role.attributes());
            }
        }
    }
}

#[test]
fn a_broken_copy_is_a_defect_and_the_other_one_is_read() {
    let layout = smallest(SectorSize::S512, Disks::Two);
    let (_folder, path) = on_disk(&layout);
    let file = File::options().read(true).write(true).open(path).unwrap();
    let last = layout.disk_size - 512;
    for (offset, good) in [
        (512 + 56, Copy::Backup),
        (1024 + 130, Copy::Backup),
        (last + 56, Copy::Primary),
        (last - 128 * 128 + 130, Copy::Primary),
    ] {
        let mut byte = [0];
        ReadAt::read_exact_at(&file, &mut byte, offset).unwrap();
        WriteAt::write_all_at(&file, &[byte[0] ^ 1], offset).unwrap();
        let table = gpt::read(&file, None).unwrap();
        assert_eq!(table.copy, good, "byte {offset}");
        assert_eq!(table.partitions().len(), layout.partitions.len());
        let bad = match good {
            Copy::Primary => Copy::Backup,
            Copy::Backup => Copy::Primary,
        };
        assert!(
            matches!(&table.defects[..], [Defect::Header { copy, .. }] if *copy == bad),
            "byte {offset}: {:?}",
            table.defects
        );
        WriteAt::write_all_at(&file, &byte, offset).unwrap();
    }
    assert_eq!(gpt::read(&file, None).unwrap().defects, []);

    // Both gone: no table, and the error says so for both.
    WriteAt::write_all_at(&file, &[0; 8], 512).unwrap();
    WriteAt::write_all_at(&file, &[0; 8], last).unwrap();
    let error = gpt::read(&file, None).unwrap_err().to_string();
    assert!(
        error.contains("byte 512: the primary table: no signature"),
        "{error}"
    );
    assert!(error.contains("the backup table: no signature"), "{error}");
}

#[test]
fn a_grown_disk_is_named_and_read() {
    let layout = smallest(SectorSize::S512, Disks::One);
    let (_folder, path) = on_disk(&layout);
    let file = File::options().write(true).read(true).open(path).unwrap();
    file.set_len(layout.disk_size + 64 * MIB).unwrap();
    let table = gpt::read(&file, None).unwrap();
    assert_eq!(table.partitions().len(), layout.partitions.len());
    assert_eq!(
        table.defects,
        [Defect::NotAtEnd {
            offset: layout.disk_size - 512,
            end: layout.disk_size + 64 * MIB - 512,
        }]
    );
}

#[test]
fn labels_that_a_table_cannot_hold_and_small_disks_are_refused() {
    let size = Layout::minimum_size(&request(0, SectorSize::S512, Disks::One));
    let mut long = request(size, SectorSize::S512, Disks::One);
    long.version = "1.2.3-rc1+a-long-name-of-a-branch".into();
    assert!(matches!(Layout::new(&long), Err(LayoutError::Label(_))));
    let small = request(size - MIB, SectorSize::S512, Disks::One);
    let Err(LayoutError::TooSmall { needed, .. }) = Layout::new(&small) else {
        panic!("a disk that is too small");
    };
    assert_eq!(needed, size);
    let odd = request(size + 100, SectorSize::S512, Disks::One);
    assert!(matches!(
        Layout::new(&odd),
        Err(LayoutError::NotSectors { .. })
    ));
}

#[test]
fn memory_holds_a_table_as_well_as_a_file() {
    let layout = Layout::cas_disk(8 * MIB, SectorSize::S4096, "larder", 4 * MIB).unwrap();
    let disk = Memory::new(layout.disk_size as usize);
    layout.write(&disk).unwrap();
    let table = gpt::read(&disk, None).unwrap();
    assert_eq!(table.defects, []);
    assert_eq!(table.partitions()[0].label, Role::Cas.name());
}
