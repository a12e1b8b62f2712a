use super::*;
use crate::probe::{Content, identify};
use crate::recorder::{Recorder, noise};
use crate::{Device, LABEL_STATE, ReadAt, superblock};

const SIZE: usize = 16 << 20;

/// A partition full of old bytes with a pristine superblock.
fn pristine(sector_size: u32) -> Recorder {
    let mut content = noise(SIZE);
    let half = superblock::pristine_half(Uuid::from_u128(7));
    content[1024..1536].copy_from_slice(&half);
    Recorder::new(content, sector_size)
}

fn checked_by_e2fsck(content: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fs");
    std::fs::write(&path, content).unwrap();
    e2fsck(&path);
}

fn e2fsck(path: &std::path::Path) {
    let arguments = ["-fn".to_owned(), path.display().to_string()];
    let mut said = Vec::new();
    let outcome = command::run("e2fsck", &arguments, &[], DEADLINE, &mut |line| {
        said.push(line.to_owned());
    })
    .unwrap();
    assert_eq!(outcome.code, Some(0), "{said:#?}");
}

#[test]
fn a_cut_at_every_write_leaves_pristine_or_whole() {
    for sector_size in [512, 4096] {
        let mut partition = pristine(sector_size);
        make(&mut partition, LABEL_STATE, &[]).unwrap();
        assert!(partition.writes() > 5, "{}", partition.writes());
        let (mut begun, mut whole) = (0, 0);
        partition.each_cut(|moment, content| match identify(&mut &*content).unwrap() {
            Content::Ext4(ext4) if ext4.is_pristine() => begun += 1,
            Content::Ext4(ext4) if ext4.label == LABEL_STATE => {
                checked_by_e2fsck(content);
                whole += 1;
            }
            other => panic!("{moment}: {other}"),
        });
        assert!(begun > 5 && whole >= 2, "{begun} pristine, {whole} whole");
        checked_by_e2fsck(partition.content());
    }
}

#[test]
fn after_a_cut_the_next_boot_makes_it_anew() {
    let mut partition = pristine(512);
    make(&mut partition, LABEL_STATE, &[]).unwrap();
    let mut halfway = Vec::new();
    partition.each_cut(|moment, content| {
        if moment == "event 3, all" {
            halfway = content.to_vec();
        }
    });
    let mut again = Recorder::reboot(halfway, 512);
    let uuid = make(&mut again, LABEL_STATE, &[]).unwrap();
    assert_eq!(Ext4::read(&mut again).unwrap().unwrap().uuid, uuid);
    checked_by_e2fsck(again.content());
}

#[test]
fn what_is_not_pristine_is_left_alone() {
    for content in [vec![0; SIZE], noise(SIZE)] {
        let mut partition = Recorder::new(content, 512);
        let error = make(&mut partition, LABEL_STATE, &[]).unwrap_err();
        assert!(error.to_string().contains("not pristine"), "{error}");
        assert_eq!(partition.writes(), 0);
    }
    let mut made = pristine(512);
    make(&mut made, LABEL_STATE, &[]).unwrap();
    let mut made = Recorder::reboot(made.content().to_vec(), 512);
    assert!(make(&mut made, LABEL_STATE, &[]).is_err());
    assert_eq!(made.writes(), 0);
}

#[test]
fn a_failing_mke2fs_writes_nothing() {
    let mut partition = pristine(512);
    let error = make(
        &mut partition,
        LABEL_STATE,
        &["-O".into(), "nonsense".into()],
    )
    .unwrap_err();
    assert!(error.to_string().starts_with("mke2fs failed"), "{error}");
    assert_eq!(partition.writes(), 0);
}

/// On a partition with old bytes: nothing may say that inode tables are zeroed, the journal begins
/// at a random transaction, and size, journal and inodes are those of the real size.
#[test]
fn a_large_one_is_what_mke2fs_would_make_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("partition");
    let file = File::create_new(&path).unwrap();
    // An odd number of sectors: the last 512 bytes are of no use.
    file.set_len((480 << 30) + 512).unwrap();
    file.write_all_at(&superblock::pristine_half(Uuid::nil()), superblock::OFFSET)
        .unwrap();
    let mut sequences = Vec::new();
    for _ in 0..2 {
        file.write_all_at(&superblock::pristine_half(Uuid::nil()), superblock::OFFSET)
            .unwrap();
        let mut partition = Device::open_rw(&path).unwrap();
        assert_eq!(partition.size() % 4096, 512);
        let words = ["-i", "8192", "-m", "0", "-E", "stride=2"].map(Into::into);
        make(&mut partition, "larder-cas", &words).unwrap();
        let shown = std::process::Command::new("/usr/sbin/dumpe2fs")
            .arg(&path)
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let value = |key: &str| {
            let line = shown
                .lines()
                .find(|line| line.starts_with(key))
                .unwrap_or_default();
            line.split_once(':').unwrap_or_default().1.trim().to_owned()
        };
        assert!(!shown.contains("ITABLE_ZEROED"));
        assert_eq!(value("Filesystem volume name"), "larder-cas");
        assert_eq!(value("Block count"), (480u64 << 18).to_string());
        assert_eq!(value("Inode count"), (480u64 << 17).to_string());
        assert_eq!(value("Reserved block count"), "0");
        assert_eq!(value("RAID stride"), "2");
        assert_eq!(value("Total journal size"), "1024M");
        assert_eq!(value("Journal start"), "0");
        sequences.push(value("Journal sequence"));
    }
    assert_ne!(sequences[0], sequences[1]);
    assert_ne!(sequences[0], "0x00000001");
}
