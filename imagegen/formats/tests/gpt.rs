//! The partition table against sgdisk.

mod support;

use std::fs::File;

use formats::gpt::{self, Copy, Defect, Disks, Layout, LayoutError, Request, Role, SectorSize};
use formats::region::{Memory, WriteAt};
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
        root_hash: RootHash([0xA5; 32]),
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
