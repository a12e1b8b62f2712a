//! Real block devices: loop devices, where this process may make them. `make test` runs as any
//! user; where it may not, these tests say so and pass, and the rest is tested on plain files.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use formats::gpt::{self, SectorSize};

use super::super::Outcome;
use super::compose::{Bench, error, flash, ok, refused, tool};

/// Says so even where the output of good tests is not shown.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// A loop device, detached with its value.
struct Loop(PathBuf);

impl Loop {
    /// Over a new file of that size; `None`, loudly, where there are none.
    fn new(file: &Path, size: u64, sector: u32) -> Option<Self> {
        File::create_new(file).unwrap().set_len(size).unwrap();
        let sector = sector.to_string();
        let file = file.to_str().unwrap();
        let made = tool("losetup", &["-f", "--show", "-P", "-b", &sector, file]);
        if made.status.success() {
            let path = String::from_utf8_lossy(&made.stdout).trim().to_owned();
            return Some(Self(path.into()));
        }
        skipped(&format!(
            "no loop device here, so flashing a block device is not tested: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ));
        None
    }

    fn node(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap().to_str().unwrap().into()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tool("losetup", &["-d", self.node()]);
    }
}

fn args(bench: &Bench, device: &Loop) -> super::FlashArgs {
    super::FlashArgs {
        disk: device.0.clone(),
        yes: Some(device.name()),
        ..bench.args("one", "x")
    }
}

#[test]
fn a_block_device_of_either_sector_size() {
    let bench = Bench::new("1");
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let file = bench.path(&format!("{sector:?}"));
        let Some(device) = Loop::new(&file, 3 << 30, sector.bytes() as u32) else {
            return;
        };
        let args = args(&bench, &device);
        let other = super::FlashArgs {
            sector_size: Some(match sector {
                SectorSize::S512 => SectorSize::S4096,
                SectorSize::S4096 => SectorSize::S512,
            }),
            ..args.clone()
        };
        assert!(error(&other).contains("--sector-size is only for files"));
        let said = flash(&args).unwrap();
        assert_eq!(said.outcome, Outcome::Written, "{said:?}");
        let table = gpt::read(&File::open(&file).unwrap(), Some(sector)).unwrap();
        assert_eq!(table.defects, []);
        let words = ok("sgdisk", &["-v", device.node()]);
        assert!(words.contains("No problems found"), "{words}");
        // The kernel has seen the new table, if it can read one.
        let eighth = format!("/sys/class/block/{}p8/size", device.name());
        match std::fs::read_to_string(eighth) {
            Ok(size) => {
                let cas = table.by_label("cas").unwrap();
                assert_eq!(size.trim().parse::<u64>().unwrap() * 512, cas.size);
            }
            Err(_) => {
                skipped("this kernel knows no GPT, so what it makes of the table is not tested")
            }
        }
        assert!(refused(&args).contains("holds a Larder that was never started"));
    }
}

#[test]
fn block_devices_that_are_in_use() {
    let bench = Bench::new("1");
    let file = bench.path("file");
    let Some(device) = Loop::new(&file, 3 << 30, 512) else {
        return;
    };
    let mut args = args(&bench, &device);
    args.wipe = true;
    // The file behind it must not be written under its feet.
    let behind = super::FlashArgs {
        disk: file.clone(),
        yes: Some("file".into()),
        ..args.clone()
    };
    let words = refused(&behind);
    assert!(
        words.contains(&format!("the file behind {}", device.name())),
        "{words}"
    );
    flash(&args).unwrap();
    let part = super::FlashArgs {
        disk: format!("{}p8", device.node()).into(),
        ..args.clone()
    };
    if !part.disk.exists() {
        // A kernel that knows no GPT can be told.
        ok("partx", &["-a", device.node()]);
    }
    let words = error(&part);
    assert!(words.contains("is partition 8 of /dev/loop"), "{words}");
    // Whoever holds a partition holds the disk, though no mount table shows it.
    let holder = disk::Device::open_exclusive(&part.disk).unwrap();
    let words = refused(&args);
    assert!(words.contains("is busy"), "{words}");
    drop(holder);
    let folder = bench.path("mounted");
    std::fs::create_dir(&folder).unwrap();
    let node = part.disk.to_str().unwrap();
    let folder = folder.to_str().unwrap();
    ok("mount", &["-t", "ext4", "-o", "ro", node, folder]);
    let said = flash(&args);
    ok("umount", &[folder]);
    let said = said.unwrap();
    assert_eq!(said.outcome, Outcome::Refused);
    assert!(
        said.words.contains(&format!("mounted on {folder}")),
        "{said:?}"
    );
    assert!(said.plan.contains("mounted on"), "{said:?}");
    assert_eq!(flash(&args).unwrap().outcome, Outcome::Written);
}
