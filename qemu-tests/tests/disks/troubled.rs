//! One disk, of which state or `/cas` is dead, missing or somebody else's: the console says so, the
//! machine is reachable and serves what it can, and nothing is formatted.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use qemu_tests::recorder::{Fault, Operation, Record};
use qemu_tests::{Setup, TestMachine, disk, scenario};

/// Everything on these bytes fails; a flush, which is about all bytes, does not.
fn dead(range: &Range<u64>) -> Fault {
    Fault {
        range: range.clone(),
        operations: vec![Operation::Read, Operation::Write, Operation::Trim],
        ..Fault::dead()
    }
}

/// A small ext4 of somebody else's at the start of a partition.
fn somebody_elses(disk: &Path, partition: &Range<u64>, folder: &Path) -> Result<Vec<u8>> {
    let file = folder.join("foreign.ext4");
    std::fs::File::create(&file)?.set_len(8 << 20)?;
    let name = file.display().to_string();
    let words = ["-q", "-F", "-t", "ext4", "-L", "rootfs", &name];
    disk::tool("mke2fs", "e2fsprogs", &words)?;
    let content = std::fs::read(&file)?;
    std::fs::remove_file(&file)?;
    disk::overwrite(disk, partition.start, &content)?;
    Ok(content)
}

/// What one boot is to show. Parts die when the boot loader has started: a firmware may give up on a
/// disk that it cannot read, which is not ours to better.
struct Expected<'a> {
    /// What the console says about the state, and about `/cas`.
    state: &'a str,
    cas: &'a str,
    /// Bytes that fail.
    dead: Option<&'a Range<u64>>,
    /// Bytes of the disk that nobody may write to.
    untouched: Vec<Range<u64>>,
}

/// Boots, and cuts the power when everything was looked at.
fn boot(machine: &mut TestMachine, expected: &Expected) -> Result<()> {
    let before = machine.recorder().log().len();
    let before_met = machine.recorder().faults().met();
    machine.power_on()?;
    if let Some(range) = expected.dead {
        machine.wait_console(&["BdsDxe: starting"])?;
        machine.recorder().faults().add(dead(range));
    }
    // In this order: stage1 comes first.
    for words in [expected.state, "/var is in memory", expected.cas] {
        machine.wait_console(&[words])?;
    }
    machine.wait_up()?;
    machine.check(&format!("reachable while {}", expected.state), |machine| {
        let report = machine.succeed("cat /run/larder/boot.json")?;
        ensure!(report.contains(r#""state_status": "tmpfs""#), "{report}");
        ensure!(report.contains(expected.state), "{report}");
        let kind = machine.succeed("findmnt -no FSTYPE /var")?;
        ensure!(kind.trim() == "tmpfs", "/var is {kind}");
        Ok(())
    });
    machine.check(&format!("serves while {}", expected.cas), |machine| {
        machine.fail("findmnt /cas")?;
        let status = machine.put("nowhere", b"artifact")?;
        ensure!(status >= 500, "PUT without /cas: {status}");
        let (status, _) = machine.get("nowhere")?;
        ensure!(status == 404, "GET without /cas: {status}");
        Ok(())
    });
    machine.power_cut()?;
    if expected.dead.is_some() {
        let met = machine.recorder().faults().met();
        ensure!(met > before_met, "nobody asked for the dead part");
        machine.recorder().faults().clear();
    }
    machine.check("nothing was formatted", |machine| {
        let log = machine.recorder().log();
        let touched = log.records()[before..].iter().find(|record| match record {
            Record::Write(write) => expected
                .untouched
                .iter()
                .any(|range| range.start < write.offset + write.length && write.offset < range.end),
            Record::Flush => false,
        });
        ensure!(touched.is_none(), "written: {touched:?}");
        Ok(())
    });
    Ok(())
}

#[test]
fn a_machine_with_a_troubled_disk_goes_on() {
    let setup = Setup::new("troubled")
        .recorded()
        .allow("I/O error, dev vda", "a part of the disk is dead")
        .allow("Buffer I/O error on dev vda", "a part of the disk is dead")
        .allow("Failed to start larder-cas.service", "there is no /cas");
    scenario(setup, |machine| {
        let disk = machine.disk().to_owned();
        let state = disk::partition(&disk, "state")?;
        // The partition grows before anybody looks into it.
        let cas = disk::partition(&disk, "cas")?.start..machine.recorder().size() - (1 << 20);
        // Over the superblock too: with it the partition would still say that it is pristine.
        let unknown = b"not a file system that anybody knows".repeat(200);
        disk::overwrite(&disk, cas.start, &unknown)?;
        boot(
            machine,
            &Expected {
                state: "/dev/vda7: it is not readable, and is left alone",
                cas: "no /cas: /dev/vda8 holds unknown data",
                dead: Some(&state),
                untouched: vec![state.clone(), cas.clone()],
            },
        )?;

        let content = somebody_elses(&disk, &state, machine.folder())?;
        boot(
            machine,
            &Expected {
                state: "/dev/vda7: it holds an ext4",
                cas: "no /cas: /dev/vda8 is not readable and is left alone",
                dead: Some(&cas),
                untouched: vec![state.clone(), cas.clone()],
            },
        )?;
        let mut found = vec![0; content.len()];
        std::fs::File::open(&disk)?.read_exact_at(&mut found, state.start)?;
        ensure!(found == content, "the foreign file system was changed");

        let file = disk.display().to_string();
        disk::tool("sgdisk", "gdisk", &["-d", "7", "-d", "8", &file])?;
        boot(
            machine,
            &Expected {
                state: "the boot disk has no state partition",
                cas: "no /cas: the boot disk /dev/vda has no partition named cas",
                dead: None,
                untouched: vec![state.clone(), cas.clone()],
            },
        )
    });
}
