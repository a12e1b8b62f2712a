use super::*;
use crate::Device;
use crate::recorder::{Recorder, noise};
use crate::{LABEL_CAS, PRISTINE, mkfs};

const SIZE: usize = 16 << 20;

fn blank(sector_size: u32) -> Recorder {
    Recorder::new(vec![0; SIZE], sector_size)
}

fn refused(content: Vec<u8>) -> String {
    let mut disk = Recorder::new(content, 512);
    match judge(&mut disk).unwrap() {
        Verdict::Refuse(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cut_at_every_write_is_picked_up_again() {
    for sector_size in [512, 4096] {
        let mut disk = blank(sector_size);
        assert_eq!(
            judge(&mut disk).unwrap(),
            Verdict::Partition { begun: None }
        );
        partition(&mut disk, None).unwrap();
        let final_disk = disk.content().to_vec();
        let (mut fresh, mut begun, mut adopted) = (0, 0, 0);
        disk.each_cut(|moment, content| {
            let mut next = Recorder::reboot(content.to_vec(), sector_size);
            match judge(&mut next).unwrap() {
                Verdict::Partition { begun: None } => fresh += 1,
                Verdict::Partition { begun: uuid } => {
                    partition(&mut next, uuid).unwrap();
                    assert!(next.content() == final_disk, "{moment}");
                    begun += 1;
                }
                Verdict::Adopt(found) => {
                    assert_eq!(found.name, "cas");
                    crate::grow::partition(&mut next, "cas").unwrap();
                    assert!(next.content() == final_disk, "{moment}");
                    adopted += 1;
                }
                Verdict::Refuse(reason) => panic!("{moment}: {reason}"),
            }
        });
        assert!(
            fresh >= 2 && begun >= 4 && adopted >= 2,
            "{fresh} {begun} {adopted}"
        );
    }
}

#[test]
fn the_new_table_satisfies_sgdisk_and_the_gpt_crate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::File::create_new(&path)
        .unwrap()
        .set_len(SIZE as u64)
        .unwrap();
    let mut disk = Device::open_rw(&path).unwrap();
    let made = partition(&mut disk, None).unwrap();
    assert_eq!((made.first, made.last), (2048, (15 << 11) - 1));
    let shown = std::process::Command::new("sgdisk")
        .arg("-v")
        .arg(&path)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("No problems found"), "{shown}");
    let read = ::gpt::GptConfig::new().open(&path).unwrap();
    assert_eq!(read.partitions()[&1].name, "cas");
    assert_eq!(read.partitions()[&1].part_guid, made.guid);
}

#[test]
fn a_larder_disk_is_adopted() {
    let mut disk = blank(512);
    let made = partition(&mut disk, None).unwrap();
    assert_eq!(judge(&mut disk).unwrap(), Verdict::Adopt(made.clone()));
    // As mkfs leaves it.
    let at = made.first as usize * 512;
    let mut inner = Recorder::new(disk.content()[at..at + (SIZE >> 1)].to_vec(), 512);
    mkfs::make(&mut inner, LABEL_CAS, &[]).unwrap();
    let mut content = disk.content().to_vec();
    content[at..at + (SIZE >> 1)].copy_from_slice(inner.content());
    assert_eq!(
        judge(&mut Recorder::new(content, 512)).unwrap(),
        Verdict::Adopt(made)
    );
}

#[test]
fn anything_else_is_refused_by_name() {
    let disk = |offset: usize, bytes: &[u8]| {
        let mut disk = vec![0; SIZE];
        disk[offset..offset + bytes.len()].copy_from_slice(bytes);
        refused(disk)
    };
    assert_eq!(disk(0, b"XFSB"), "holds an XFS");
    assert_eq!(
        disk(510, &[0x55, 0xaa]),
        "holds a partition table (MBR) or a boot sector"
    );
    assert_eq!(disk(900_000, b"x"), "is not blank (data at byte 900000)");
    assert_eq!(disk(SIZE - 1, b"x"), "is not blank (data in its last MiB)");
    assert_eq!(refused(noise(1 << 20)), "has only 1048576 bytes");
    assert!(refused(noise(SIZE)).starts_with("holds unknown data"));
    // A lost table in front of somebody's data, an interrupted work of ours not included.
    let half = superblock::pristine_half(Uuid::from_u128(1));
    let mut theirs = half;
    theirs[0x78..0x78 + PRISTINE.len()].fill(0);
    let reason = disk(MIB + 1024, &theirs);
    assert!(
        reason.starts_with("has lost its partition table, but an ext4"),
        "{reason}"
    );
    let mut content = vec![0; SIZE];
    content[MIB + 1024..MIB + 1536].copy_from_slice(&half);
    content[100_000] = 1;
    refused(content);
}

#[test]
fn somebody_elses_table_is_refused() {
    let partition = |name: &str| Partition {
        number: 3,
        type_guid: gpt::TYPE_LINUX,
        guid: Uuid::from_u128(5),
        first: 2048,
        last: 4095,
        attributes: 0,
        name: name.into(),
    };
    for (name, reason) in [
        ("data", "holds a partition table with 3 \"data\""),
        (
            "cas",
            "has a partition named cas, but it holds no file system",
        ),
    ] {
        let mut disk = blank(512);
        let sectors = (SIZE / 512) as u64;
        Table::new(Uuid::from_u128(9), 512, sectors, vec![partition(name)])
            .unwrap()
            .commit(&mut disk)
            .unwrap();
        assert_eq!(judge(&mut disk).unwrap(), Verdict::Refuse(reason.into()));
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error() {
    struct HalfDead(Recorder);
    impl ReadAt for HalfDead {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn sector_size(&self) -> u32 {
            512
        }
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
            if offset >= self.size() - MIB as u64 {
                let cause = std::io::Error::from_raw_os_error(libc::EIO);
                return Err(Error::Transfer {
                    action: "read",
                    offset,
                    length: 0,
                    cause,
                });
            }
            self.0.read_at(offset, buffer)
        }
    }
    assert!(judge(&mut HalfDead(blank(512))).is_err());
}
