//! What makes a machine reboot by itself: two disks that could both be the boot disk, a system that
//! hangs, a root that is not what was sealed.

use anyhow::{Context, Result, ensure};
use qemu_tests::{Setup, TestMachine, disk, full_matrix, scenario, shipped_image};
use vm::{Bus, Disk, WatchdogAction, sparse_copy};

/// A file that nothing reads at boot.
const UNREAD: &str = "/usr/share/tabset/vt100";

/// Offset on the disk of the first block of a file of the root.
fn place_of(path: &str, disk: &std::path::Path, folder: &std::path::Path) -> Result<u64> {
    let root = root_partition(disk)?;
    let file = folder.join("root.ext4");
    disk::extract(disk, root.clone(), &file)?;
    let ask = format!("blocks {path}");
    let file_name = file.display().to_string();
    let blocks = disk::tool("debugfs", "e2fsprogs", &["-R", &ask, &file_name])?;
    std::fs::remove_file(&file)?;
    let first = blocks.split_whitespace().next();
    let first = first.with_context(|| format!("{path} is not in the image"))?;
    Ok(root.start + 4096 * first.parse::<u64>().context(blocks.clone())?)
}

/// Bytes of the root partition in use.
fn root_partition(disk: &std::path::Path) -> Result<std::ops::Range<u64>> {
    let file = std::fs::File::open(disk)?;
    let table = formats::gpt::read(&file, None)?;
    let found = table
        .partitions()
        .iter()
        .find(|entry| entry.label.starts_with("larder_") && !entry.label.ends_with("_verity"));
    let found = found.context("the disk has no root partition")?;
    Ok(found.start..found.end())
}

#[test]
fn a_hang_and_a_flipped_byte_end_in_a_reboot() {
    let setup = Setup::new("incidents")
        .bus(Bus::Nvme)
        .machine(|machine| machine.watchdog(WatchdogAction::Reset))
        .allow("is corrupted", "the flipped byte")
        .allow("Kernel panic - not syncing: dm-verity", "its consequence")
        .allow("Call Trace:", "a panic shows where it was");
    scenario(setup, |machine| {
        let flipped = place_of(UNREAD, machine.disk(), machine.folder())?;
        disk::flip(machine.disk(), flipped + 10)?;
        machine.boot()?;
        machine.check("an artifact is on the NVMe disk", |machine| {
            let source = machine.succeed("findmnt -no SOURCE /cas")?;
            ensure!(source.trim() == "/dev/nvme0n1p8", "/cas is on {source}");
            ensure!(machine.put("before", b"artifact")? < 300, "PUT fails");
            Ok(())
        });
        machine.check("systemd has taken the watchdog over", |machine| {
            let shown = machine.succeed("systemctl show -p RuntimeWatchdogUSec")?;
            ensure!(shown.trim() == "RuntimeWatchdogUSec=1min", "{shown}");
            Ok(())
        });
        hang(machine)?;
        machine.wait_up()?;
        machine.check("the artifact is still there", |machine| {
            let (status, body) = machine.get("before")?;
            ensure!(status == 200 && body == b"artifact", "GET: {status}");
            Ok(())
        });
        // Not by SSH itself, which would wait for an answer that never comes.
        machine.succeed(&format!(
            "sudo systemd-run --quiet --on-active=3 cat {UNREAD}"
        ))?;
        machine.wait_console(&["is corrupted"])?;
        machine.wait_console(&["Kernel panic"])?;
        machine.wait_reset()?;
        machine.power_cut()
    });
}

/// Freezes PID 1, which is what feeds the watchdog, and waits for the watchdog.
fn hang(machine: &mut TestMachine) -> Result<()> {
    // No signal reaches PID 1 against its will; the freezer of its cgroup does.
    machine.succeed("echo 1 | sudo tee /sys/fs/cgroup/init.scope/cgroup.freeze")?;
    machine.wait_reset()?;
    let events = machine.running()?.events()?;
    let barked = events.iter().any(|event| event.name == "WATCHDOG");
    ensure!(barked, "it was reset, but not by the watchdog: {events:?}");
    Ok(())
}

#[test]
fn two_boot_disks_are_one_too_many() {
    let folder =
        tempfile::tempdir_in(std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into()))
            .expect("no folder for a disk");
    let twin = folder.path().join("twin.raw");
    let image = shipped_image().unwrap_or_else(|error| panic!("{error:#}"));
    sparse_copy(&image, &twin).expect("cannot copy the image");
    let second = twin.clone();
    let setup = Setup::new("two_boot_disks")
        .bus(Bus::Ahci)
        .machine(move |machine| machine.disk(Disk::file(&second).no_flush().on(Bus::Ahci)));
    scenario(setup, |machine| {
        let before = std::fs::metadata(&twin)?.modified()?;
        machine.power_on()?;
        let found = machine.wait_console(&["could all be the boot disk"])?;
        for name in ["/dev/sda", "/dev/sdb"] {
            ensure!(found.line.contains(name), "{name} is not in {}", found.line);
        }
        machine.wait_console(&["rebooting in 60 s"])?;
        machine.wait_reset()?;
        machine.power_cut()?;
        let after = std::fs::metadata(&twin)?.modified()?;
        ensure!(after == before, "one of them was written to");
        Ok(())
    });
}

/// What stage1 itself reads of the sealed root: the superblock of the file system, and the tree.
#[test]
fn a_root_that_does_not_mount_is_said_and_reboots() {
    if !full_matrix("a flipped byte in what stage1 reads of the root") {
        return;
    }
    let setup = Setup::new("unmountable_root")
        .allow("is corrupted", "the flipped byte")
        .allow("Kernel panic - not syncing: dm-verity", "its consequence")
        .allow("Call Trace:", "a panic shows where it was");
    scenario(setup, |machine| {
        let root = root_partition(machine.disk())?;
        disk::flip(machine.disk(), root.start + 1024 + 0x78)?;
        machine.power_on()?;
        machine.wait_console(&["is corrupted"])?;
        machine.wait_reset()?;
        machine.power_cut()?;
        disk::flip(machine.disk(), root.start + 1024 + 0x78)?;
        machine.boot()
    });
}
