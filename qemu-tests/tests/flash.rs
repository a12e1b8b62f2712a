//! A disk that `imagegen flash` has written boots, and is the host that it was flashed for.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use formats::gpt::SectorSize;
use imagegen::flash::{FlashArgs, run};
use qemu_tests::{Setup, TestMachine, scenario, shipped_image, source_tree};

/// Size of the disk: large enough for a state partition of 8 GiB.
const SIZE: u64 = 40 << 30;

/// Flashes the image that ships into a new file in `folder`.
fn flash(folder: &Path, sector: SectorSize) -> Result<std::path::PathBuf> {
    let disk = folder.join("flashed.raw");
    let code = run(FlashArgs {
        host: "dev".into(),
        disk: disk.clone(),
        image: shipped_image()?,
        configs: source_tree().join("configs"),
        yes: None,
        wipe: false,
        dry_run: false,
        json: false,
        size: Some(SIZE),
        sector_size: Some(sector),
    })?;
    // ExitCode compares only as text.
    let (code, good) = (format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    ensure!(code == good, "flash ended with {code}");
    Ok(disk)
}

/// What a flashed machine has of its own.
fn own(machine: &mut TestMachine, sector: SectorSize) -> Result<()> {
    machine.boot()?;
    machine.check("its name comes from the ESP", |machine| {
        let name = machine.succeed("hostname")?;
        ensure!(name.trim() == "dev.larder.internal", "its name is {name}");
        Ok(())
    });
    machine.check("its sectors", |machine| {
        let size = machine.succeed("cat /sys/block/vda/queue/logical_block_size")?;
        ensure!(size.trim() == sector.bytes().to_string(), "{size}");
        Ok(())
    });
    machine.check(
        "/var and /cas have the size of their partitions",
        |machine| {
            for (target, least) in [("/var", 7 << 30), ("/cas", 28_u64 << 30)] {
                let size = machine.succeed(&format!("findmnt -bno SIZE {target}"))?;
                let size: u64 = size.trim().parse().context(target)?;
                ensure!(size > least, "{target} has {size} bytes");
            }
            Ok(())
        },
    );
    machine.check("the ESP is mounted and its own", |machine| {
        let host = machine.succeed("sudo cat /boot/larder/host")?;
        ensure!(host == "dev\n", "{host:?}");
        Ok(())
    });
    machine.check("it keeps an artifact", |machine| {
        let status = machine.put("flashed", b"artifact")?;
        ensure!(status < 300, "PUT: {status}");
        let (status, body) = machine.get("flashed")?;
        ensure!(status == 200 && body == b"artifact", "GET: {status}");
        Ok(())
    });
    machine.shut_down()
}

fn boots(name: &str, sector: SectorSize) {
    let folder = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    let folder = tempfile::tempdir_in(folder).expect("no folder for a disk");
    let disk = flash(folder.path(), sector).unwrap_or_else(|error| panic!("{error:#}"));
    let setup = Setup::new(name)
        .image(disk)
        .without_host()
        .block_size(sector.bytes() as u32);
    scenario(setup, |machine| own(machine, sector));
}

#[test]
fn a_flashed_disk_boots() {
    boots("a_flashed_disk_boots", SectorSize::S512);
}

#[test]
fn a_flashed_disk_of_large_sectors_boots() {
    boots("a_flashed_disk_of_large_sectors_boots", SectorSize::S4096);
}
