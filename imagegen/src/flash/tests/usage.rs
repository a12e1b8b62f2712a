//! Who uses a disk, as sysfs and proc tell it.

use std::path::Path;

use super::super::usage::Kernel;

/// A machine: sda with a root on LVM, sdb with swap and a file system over several disks, sdc free.
fn machine(folder: &Path) -> Kernel {
    let put = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    };
    let block = "sys/class/block";
    for (name, disk, number, dev) in [
        ("sda1", "sda", "1", "8:1"),
        ("sda2", "sda", "2", "8:2"),
        ("sdb1", "sdb", "1", "8:17"),
        ("sdb2", "sdb", "2", "8:18"),
    ] {
        put(&format!("{block}/{disk}/{name}/partition"), number);
        put(&format!("{block}/{name}/dev"), dev);
    }
    put(&format!("{block}/sda/dev"), "8:0");
    put(&format!("{block}/sdc/dev"), "8:32");
    put(&format!("{block}/sda2/holders/dm-0/dev"), "253:0");
    put(&format!("{block}/dm-0/dev"), "253:0");
    put(&format!("{block}/dm-0/dm/name"), "vg-root");
    put(&format!("{block}/loop3/loop/backing_file"), "/srv/disk.raw");
    put(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/sdb1 partition 8 0 -2",
    );
    put(
        "proc/self/mountinfo",
        "22 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n\
         23 22 8:1 / /boot/efi rw shared:1 - vfat /dev/sda1 rw\n\
         24 22 0:40 / /data/two\\040words rw - btrfs /dev/sdb2 rw\n\
         25 22 0:41 / /proc rw - proc proc rw",
    );
    Kernel {
        sys: folder.join("sys"),
        proc: folder.join("proc"),
    }
}

#[test]
fn mounts_swap_and_holders_are_found_through_all_layers() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = machine(folder.path());
    let uses = |disk| {
        let uses = kernel.uses(disk);
        let words = uses.iter().map(|its| {
            let root = if its.root { " (root)" } else { "" };
            format!("{:?} {} {}{root}", its.partition, its.device, its.how)
        });
        words.collect::<Vec<_>>()
    };
    assert_eq!(
        uses("sda"),
        [
            "Some(1) sda1 mounted on /boot/efi",
            "Some(2) sda2 held by dm-0 (vg-root)",
            "Some(2) dm-0 mounted on / (root)",
        ]
    );
    assert_eq!(
        uses("sdb"),
        [
            "Some(1) sdb1 in use as swap",
            "Some(2) sdb2 mounted on /data/two words",
        ]
    );
    assert!(uses("sdc").is_empty());
    let loops = kernel.loops(Path::new("/srv/disk.raw"));
    assert_eq!(loops.len(), 1);
    assert_eq!(loops[0].device, "loop3");
    assert!(kernel.loops(Path::new("/srv/other.raw")).is_empty());
}
