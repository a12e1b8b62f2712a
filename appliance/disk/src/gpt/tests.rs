use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::Storage;
use crate::recorder::{Recorder, noise};

const GIB: u64 = 1 << 30;

/// A small disk with the partitions of a machine, numbers with a gap, as `sgdisk` writes them.
fn by_sgdisk(sector_size: u32, mib: u64) -> Vec<u8> {
    assert_eq!(
        sector_size, 512,
        "sgdisk takes plain files as disks with 512-byte sectors"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::File::create_new(&path)
        .unwrap()
        .set_len(mib << 20)
        .unwrap();
    let output = Command::new("sgdisk")
        .args(["-U", "11111111-2222-3333-4444-555555555555"])
        .args(["-n1:1M:+1M", "-t1:ef02", "-c1:bios"])
        .args([
            "-n2:2M:+2M",
            "-t2:ef00",
            "-c2:ESP",
            "-u2:AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE",
        ])
        .args(["-n7:4M:+1M", "-t7:8300", "-c7:state", "-A7:set:59"])
        .args(["-n8:5M:6M", "-t8:8300", "-c8:cas"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::read(&path).unwrap()
}

/// The same by our writer, for either sector size.
fn by_us(sector_size: u32, bytes: usize) -> Recorder {
    let scale = u64::from(sector_size);
    let mib = |count: u64| (count << 20) / scale;
    let partition = |number, name: &str, first, last| Partition {
        number,
        type_guid: TYPE_LINUX,
        guid: Uuid::from_u128(u128::from(number)),
        first,
        last,
        attributes: 1 << 59,
        name: name.into(),
    };
    let mut disk = Recorder::new(vec![0; bytes], sector_size);
    let list = vec![
        partition(2, "ESP", mib(1), mib(2) - 1),
        partition(8, "cas", mib(2), mib(3) - 1),
    ];
    Table::new(Uuid::from_u128(1), sector_size, bytes as u64 / scale, list)
        .unwrap()
        .commit(&mut disk)
        .unwrap();
    Recorder::reboot(disk.content().to_vec(), sector_size)
}

fn sgdisk_says(content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, content).unwrap();
    let output = Command::new("sgdisk")
        .arg("-v")
        .arg(&path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn reads_what_sgdisk_writes() {
    let content = by_sgdisk(512, 8);
    let table = Table::read(&mut &content[..]).unwrap();
    assert_eq!(
        table.disk_guid.to_string(),
        "11111111-2222-3333-4444-555555555555"
    );
    assert_eq!(table.problems, [""; 0]);
    assert_eq!(table.names(), r#"1 "bios", 2 "ESP", 7 "state", 8 "cas""#);
    let esp = table.by_type(TYPE_ESP).unwrap();
    assert_eq!((esp.number, esp.first, esp.last), (2, 4096, 8191));
    assert_eq!(table.by_guid(esp.guid), Some(esp));
    assert_eq!(esp.guid.to_string(), "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
    assert_eq!(table.by_name("state").unwrap().attributes, 1 << 59);
}

#[test]
fn the_gpt_crate_reads_what_we_write() {
    for sector_size in [512, 4096] {
        let disk = by_us(sector_size, 8 << 20);
        let size = ::gpt::disk::LogicalBlockSize::try_from(u64::from(sector_size)).unwrap();
        let cursor = std::io::Cursor::new(disk.content().to_vec());
        let read = ::gpt::GptConfig::new()
            .logical_block_size(size)
            .open_from_device(cursor)
            .unwrap();
        let names: Vec<_> = read
            .partitions()
            .iter()
            .map(|(n, p)| (*n, p.name.as_str()))
            .collect();
        assert_eq!(names, [(2, "ESP"), (8, "cas")]);
    }
    let said = sgdisk_says(by_us(512, 8 << 20).content());
    assert!(said.contains("No problems found"), "{said}");
}

#[test]
fn the_other_copy_serves_when_one_is_bad() {
    let good = by_sgdisk(512, 8);
    let names = Table::read(&mut &good[..]).unwrap().names();
    let damage = |ranges: &[(usize, usize)]| {
        let mut bad = good.clone();
        for &(from, to) in ranges {
            bad[from..to].fill(0xff);
        }
        Table::read(&mut &bad[..])
    };
    let end = good.len();
    let primary = damage(&[(512, 600)]).unwrap();
    assert_eq!(
        (primary.source, primary.names()),
        (Copy::Backup, names.clone())
    );
    assert_eq!(primary.problems, ["the first copy is not there"]);
    let entries = damage(&[(1024, 1030)]).unwrap();
    assert_eq!(
        entries.problems,
        ["the first copy has entries with a wrong checksum"]
    );
    let header = damage(&[(512 + 60, 512 + 61)]).unwrap();
    assert_eq!(
        header.problems,
        ["the first copy has a header with a wrong checksum"]
    );
    let backup = damage(&[(end - 512, end)]).unwrap();
    assert_eq!((backup.source, backup.names()), (Copy::Primary, names));
    assert_eq!(backup.problems, ["the copy at the end is not there"]);
    let neither = damage(&[(512, 600), (end - 512, end)]).unwrap_err();
    assert_eq!(
        neither.to_string(),
        "no usable partition table: the first copy is not there; the copy at the end is not there"
    );
}

#[test]
fn an_image_on_a_larger_disk_is_read_and_grown() {
    for sector_size in [512u32, 4096] {
        let small = by_us(sector_size, 8 << 20);
        let mut content = small.content().to_vec();
        content.resize(16 << 20, 0);
        let mut disk = Recorder::new(content.clone(), sector_size);
        assert!(crate::grow::is_needed(&mut disk, "cas").unwrap());
        let grown = crate::grow::partition(&mut disk, "cas").unwrap();
        assert!(!crate::grow::is_needed(&mut disk, "cas").unwrap());
        assert_eq!((grown.old_bytes, grown.new_bytes), (1 << 20, 13 << 20));
        assert_eq!(grown.partition.number, 8);
        let table = Table::read(&mut disk).unwrap();
        assert_eq!(table.problems, [""; 0]);
        if sector_size == 512 {
            let said = sgdisk_says(disk.content());
            assert!(said.contains("No problems found"), "{said}");
        }
        // Twice is once.
        let writes = disk.writes();
        let again = crate::grow::partition(&mut disk, "cas").unwrap();
        assert_eq!((again.new_bytes, again.repaired.len()), (13 << 20, 0));
        assert_eq!(disk.writes(), writes);
        // The first copy bad as well: its header still says where the second one was.
        content[sector_size as usize * 2] ^= 1;
        let mut bad = Recorder::new(content, sector_size);
        let seen = Table::read(&mut bad).unwrap();
        assert!(seen.grown, "{seen:?}");
        assert_eq!(
            seen.problems,
            ["the first copy has entries with a wrong checksum"]
        );
        crate::grow::partition(&mut bad, "cas").unwrap();
        assert_eq!(bad.content(), disk.content());
    }
}

#[test]
fn a_cut_while_growing_leaves_a_whole_table() {
    for sector_size in [512u32, 4096] {
        for damaged in [None, Some(1usize)] {
            let mut content = by_us(sector_size, 8 << 20).content().to_vec();
            match damaged {
                // Same size: the only good copy is where the new one goes.
                Some(sector) => content[sector * sector_size as usize] ^= 1,
                None => content.resize(12 << 20, 0),
            }
            let mut disk = Recorder::new(content, sector_size);
            crate::grow::partition(&mut disk, "cas").unwrap();
            let final_disk = disk.content().to_vec();
            let mut cuts = 0;
            disk.each_cut(|moment, found| {
                let mut next = Recorder::reboot(found.to_vec(), sector_size);
                let table = Table::read(&mut next).unwrap_or_else(|e| panic!("{moment}: {e}"));
                assert_eq!(table.names(), r#"2 "ESP", 8 "cas""#, "{moment}");
                crate::grow::partition(&mut next, "cas").unwrap();
                assert!(next.content() == final_disk, "{moment}");
                cuts += 1;
            });
            assert!(cuts > 10, "{cuts}");
        }
    }
}

#[test]
fn only_the_last_partition_grows_and_a_foreign_mbr_stays() {
    let mut content = by_us(512, 8 << 20).content().to_vec();
    content.resize(16 << 20, 0);
    content[446 + 4] = 0x83;
    let mut disk = Recorder::new(content, 512);
    let kept = crate::grow::partition(&mut disk, "ESP").unwrap();
    assert_eq!((kept.old_bytes, kept.new_bytes), (1 << 20, 1 << 20));
    assert_eq!(disk.content()[446 + 4], 0x83);
    let error = crate::grow::partition(&mut disk, "nothing").unwrap_err();
    assert!(
        error
            .to_string()
            .contains(r#"no partition named "nothing", but 2 "ESP""#),
        "{error}"
    );
}

#[test]
fn a_table_that_does_not_fit_is_refused_before_anything_is_written() {
    let mut disk = Recorder::new(vec![0; 1 << 20], 512);
    let partition = Partition {
        number: 1,
        type_guid: TYPE_LINUX,
        guid: Uuid::from_u128(1),
        first: 34,
        last: 2047,
        attributes: 0,
        name: "x".into(),
    };
    assert!(Table::new(Uuid::nil(), 512, 2048, vec![partition.clone()]).is_err());
    assert!(Table::new(Uuid::nil(), 512, 60, Vec::new()).is_err());
    let mut table = Table::new(Uuid::nil(), 512, GIB / 512, vec![partition]).unwrap();
    assert!(table.commit(&mut disk).is_err());
    assert_eq!(disk.writes(), 0);
}

#[test]
fn a_tiny_or_empty_disk_is_no_panic() {
    for length in [0usize, 1, 511, 512, 1024, 2560, 3072, 4096] {
        let zeros = vec![0; length];
        assert!(Table::read(&mut &zeros[..]).is_err());
        fuzz(&noise(length));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Damage to a real table, with checksums put right so that it is looked at.
    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((0usize..16384 + 512, any::<u8>()), 1..8),
        right in any::<bool>(),
    ) {
        static BASE: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| by_us(512, 4 << 20).content().to_vec());
        let mut disk = BASE.clone();
        for (at, byte) in changes {
            disk[512 + at] = byte;
        }
        if right {
            let count = u32_at(&disk, 512 + 80) as usize;
            let each = u32_at(&disk, 512 + 84) as usize;
            let start = u64_at(&disk, 512 + 72) as usize;
            let range = start.checked_mul(512).and_then(|at| {
                disk.get(at..at.checked_add(count.checked_mul(each)?)?)
            });
            if let Some(entries) = range {
                let sum = crc32(entries);
                disk[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
            }
            disk[512 + 16..512 + 20].fill(0);
            let length = (u32_at(&disk, 512 + 12) as usize).clamp(92, 512);
            let sum = crc32(&disk[512..512 + length]);
            disk[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
        }
        fuzz(&disk);
        let mut copy = Recorder::new(disk, 512);
        if crate::grow::partition(&mut copy, "cas").is_ok() {
            Table::read(&mut copy).unwrap();
        }
        let _ = copy.flush();
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..8192)) {
        fuzz(&bytes);
        crate::superblock::fuzz(&bytes);
        crate::settings::fuzz(&bytes);
        crate::marker::fuzz(&bytes);
        let _ = crate::probe::identify(&mut &bytes[..]);
    }
}
