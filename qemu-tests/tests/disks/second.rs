//! The users' layout: two disks on virtio-scsi, the system on sda, `/cas` on sdb.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use imagegen::flash::{FlashArgs, run};
use qemu_tests::recorder::{Fault, Recorder};
use qemu_tests::{Setup, TestMachine, build_image, disk, scenario, shipped_image, source_tree};
use serde_json::json;
use vm::{Bus, Disk};

/// A host whose entry names /dev/sdb.
const HOST: &str = "cache-eu-central-staging";
/// The users' volume, and what it is resized to.
const SIZE: u64 = 480_000_000_000;
const RESIZED: u64 = 520_000_000_000;
const ENLARGED: u64 = 560_000_000_000;

/// A folder for disks; not in memory.
fn folder() -> tempfile::TempDir {
    let place = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    tempfile::tempdir_in(place).expect("no folder for disks")
}

/// The image that ships, flashed for [`HOST`].
fn flashed(folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("flashed.raw");
    let code = run(FlashArgs {
        host: HOST.into(),
        disk: disk.clone(),
        image: shipped_image()?,
        configs: source_tree().join("configs"),
        yes: None,
        wipe: false,
        dry_run: false,
        json: false,
        size: Some(20 << 30),
        sector_size: None,
    })?;
    // ExitCode compares only as text.
    let (code, good) = (format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    ensure!(code == good, "flash ended with {code}");
    Ok(disk)
}

fn setup(name: &str, folder: &Path, second: Disk) -> Setup {
    let disk = flashed(folder).unwrap_or_else(|error| panic!("{error:#}"));
    let second = second.on(Bus::VirtioScsi);
    Setup::new(name)
        .image(disk)
        .without_host()
        .bus(Bus::VirtioScsi)
        .machine(move |machine| machine.disk(second.clone()))
}

/// What e2fsprogs say about the file system at 1 MiB of a disk: one value.
fn dumped(disk: &Path, offset: u64, key: &str) -> Result<String> {
    let place = format!("{}?offset={offset}", disk.display());
    let text = disk::tool("dumpe2fs", "e2fsprogs", &["-h", &place])?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.with_context(|| format!("dumpe2fs does not say {key}: {text}"))?;
    Ok(value.trim().to_owned())
}

fn cas_bytes(machine: &mut TestMachine) -> Result<u64> {
    let size = machine.succeed("findmnt -bno SIZE /cas")?;
    size.trim().parse().context(size)
}

/// The file system is what the host's mkfs makes with the same options on a disk of that size.
fn as_mkfs_makes_it(second: &Path, folder: &Path) -> Result<()> {
    let table = formats::gpt::read(&File::open(second)?, None)?;
    let [cas] = table.partitions() else {
        anyhow::bail!("{} partitions", table.partitions().len());
    };
    ensure!(cas.label == "cas" && cas.start == 1 << 20, "{cas:?}");
    ensure!(SIZE - cas.end() < 2 << 20, "it ends at {}", cas.end());
    let reference = folder.join("reference.ext4");
    File::create(&reference)?.set_len(cas.end() - cas.start)?;
    let file = reference.display().to_string();
    let options = ["-q", "-F", "-t", "ext4", "-i", "8192", "-m", "0"];
    disk::tool("mke2fs", "e2fsprogs", &[&options[..], &[&file]].concat())?;
    for key in [
        "Inode count:",
        "Inodes per group:",
        "Block count:",
        "Reserved block count:",
        "Inode size:",
        "Total journal size:",
    ] {
        let (found, expected) = (dumped(second, cas.start, key)?, dumped(&reference, 0, key)?);
        ensure!(found == expected, "{key} {found}, mkfs makes {expected}");
    }
    std::fs::remove_file(reference)?;
    Ok(())
}

#[test]
fn a_blank_second_disk_is_taken_grows_and_may_go() {
    let folder = folder();
    let second = folder.path().join("second.raw");
    let make = File::create(&second).and_then(|file| file.set_len(SIZE));
    make.expect("cannot make a disk");
    let setup = setup("second_disk", folder.path(), Disk::file(&second).no_flush())
        .allow("EXT4-fs error (device sdb1)", "the disk is pulled")
        .allow("I/O error, dev sdb", "the disk is pulled")
        .allow("Buffer I/O error on dev", "the disk is pulled");
    scenario(setup, |machine| {
        machine.boot()?;
        machine.check("it is the host it was flashed for", |machine| {
            let name = machine.succeed("hostname")?;
            ensure!(name.starts_with(HOST), "its name is {name}");
            Ok(())
        });
        machine.check("system on sda, /cas on sdb", |machine| {
            let state = machine.succeed("findmnt -no SOURCE /var")?;
            let cas = machine.succeed("findmnt -no SOURCE /cas")?;
            ensure!(
                state.trim() == "/dev/sda7" && cas.trim() == "/dev/sdb1",
                "{state}{cas}"
            );
            let parts = machine.succeed("ls /dev | grep -c '^sda[0-9]'")?;
            ensure!(parts.trim() == "7", "sda has {parts} partitions");
            Ok(())
        });
        machine.check("/cas is as mkfs makes it at this size", |machine| {
            machine.succeed("sync")?;
            as_mkfs_makes_it(&second, folder.path())
        });
        machine.check("it grows while it is mounted", |machine| {
            ensure!(machine.put("small", b"artifact")? < 300, "PUT fails");
            let before = cas_bytes(machine)?;
            machine.running()?.resize_disk(1, RESIZED)?;
            let said = machine.succeed("sudo appliance grow")?;
            ensure!(said.contains("grown from"), "{said}");
            let grown = cas_bytes(machine)? - before;
            ensure!(grown > (RESIZED - SIZE) / 10 * 9, "it grew by {grown}");
            ensure!(machine.get("small")?.0 == 200, "the artifact is gone");
            let said = machine.succeed("sudo appliance grow")?;
            ensure!(said.contains("uses all of"), "{said}");
            Ok(())
        });
        machine.shut_down()?;

        let file = File::options().write(true).open(&second)?;
        file.set_len(ENLARGED)?;
        machine.boot()?;
        machine.check("it grows at the next boot", |machine| {
            let bytes = cas_bytes(machine)?;
            // An inode of 256 bytes for 8 KiB: tables take 3 %.
            ensure!(bytes > ENLARGED / 100 * 96, "it has {bytes} bytes");
            let (status, body) = machine.get("small")?;
            ensure!(status == 200 && body == b"artifact", "GET: {status}");
            Ok(())
        });
        // The cable falls out while it serves.
        machine
            .running()?
            .qmp("device_del", json!({ "id": "dev1" }))?;
        machine.wait_until_succeeds("test ! -e /sys/block/sdb")?;
        machine.check(
            "without its disk the service stays up and says so",
            |machine| {
                let status = machine.put("lost", b"artifact")?;
                ensure!(status >= 500, "PUT without a disk: {status}");
                let (status, _) = machine.get("never-there")?;
                ensure!(
                    status == 404 || status >= 500,
                    "GET without a disk: {status}"
                );
                let (status, _) = machine.http(&machine.guest()?.https_url("/up"))?;
                ensure!(status == 200, "/up: {status}");
                machine.succeed("systemctl is-active larder-cache")?;
                let ask =
                    "systemctl show -p StatusText larder-cache | grep 'nothing can be stored'";
                machine.wait_until_succeeds(ask).map(drop)
            },
        );
        machine.power_cut()
    });
}

/// Boots with a second disk that is not to be touched, and gives what the console says about it.
fn refused(machine: &mut TestMachine) -> Result<String> {
    machine.power_on()?;
    machine.wait_console(&["larder: no /cas: "])?;
    machine.wait_up()?;
    // By now the line is whole.
    let console = machine.running()?.console_text()?;
    let line = console
        .lines()
        .rfind(|line| line.contains("larder: no /cas: "));
    let line = line.context("the line is gone")?.to_owned();
    machine.check(&format!("degraded but reachable: {line}"), |machine| {
        machine.fail("findmnt /cas")?;
        let status = machine.put("nowhere", b"artifact")?;
        ensure!(status >= 500, "PUT without /cas: {status}");
        let (status, _) = machine.get("nowhere")?;
        ensure!(status == 404, "GET without /cas: {status}");
        Ok(())
    });
    machine.power_cut()?;
    Ok(line)
}

#[test]
fn a_baked_in_host_boots_with_both_disks_that_were_built_for_it() {
    let folder = folder();
    let build = build_image(folder.path(), |build| {
        build.args(["--host", HOST]);
    });
    let image = build.unwrap_or_else(|error| panic!("{error:#}"));
    let second = Disk::file(folder.path().join("larder-cas.raw")).on(Bus::VirtioScsi);
    let setup = Setup::new("baked_in")
        .image(image)
        .without_host()
        .bus(Bus::VirtioScsi)
        .machine(move |machine| machine.disk(second.clone()));
    scenario(setup, |machine| {
        machine.boot()?;
        let name = machine.succeed("hostname")?;
        ensure!(name.starts_with(HOST), "its name is {name}");
        let cas = machine.succeed("findmnt -no SOURCE /cas")?;
        ensure!(cas.trim() == "/dev/sdb1", "/cas is on {cas}");
        ensure!(machine.put("small", b"artifact")? < 300, "PUT fails");
        ensure!(machine.get("small")?.0 == 200, "GET fails");
        Ok(())
    });
}

#[test]
fn a_second_disk_that_is_not_ours_is_left_alone() {
    let folder = folder();
    let foreign = folder.path().join("foreign.raw");
    let make = File::create(&foreign).and_then(|file| file.set_len(256 << 20));
    make.expect("cannot make a disk");
    let file = foreign.display().to_string();
    disk::tool(
        "mke2fs",
        "e2fsprogs",
        &["-q", "-F", "-t", "ext4", "-L", "data", &file],
    )
    .unwrap_or_else(|error| panic!("{error:#}"));
    let recorder = Recorder::start(&foreign, 256 << 20, folder.path())
        .unwrap_or_else(|error| panic!("{error:#}"));
    let setup = setup("foreign_second_disk", folder.path(), recorder.disk())
        .allow("Failed to start larder-cas.service", "there is no /cas")
        .allow("I/O error, dev sdb", "the disk is dead")
        .allow("Buffer I/O error on dev sdb", "the disk is dead");
    scenario(setup, |machine| {
        let line = refused(machine)?;
        ensure!(
            line.contains("/dev/sdb holds an ext4") && line.contains("left alone"),
            "{line}"
        );
        recorder.faults().add(Fault::dead());
        let line = refused(machine)?;
        ensure!(line.contains("/dev/sdb is not readable"), "{line}");
        ensure!(recorder.faults().met() > 0, "nobody asked the disk");
        ensure!(recorder.log().is_empty(), "{}", recorder.log().summary());
        // The disk is pulled: the first one is all there is.
        machine.change(|setup| setup.plain());
        let line = refused(machine)?;
        ensure!(
            line.contains("/dev/sdb") && line.contains("is missing"),
            "{line}"
        );
        Ok(())
    });
}
