//! The guests: boot sectors, assembled here (binutils is there wherever Rust links).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a disk of 2 MiB in `folder` that boots `tests/it/counter.S`.
pub(crate) fn counter_disk(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/counter.S");
    let (object, disk) = (folder.join("counter.o"), folder.join("counter.raw"));
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("as").arg("-o").arg(&object).arg(source));
    run(Command::new("objcopy")
        .args(["-O", "binary"])
        .arg(object)
        .arg(&disk));
    // Less than a cylinder and SeaBIOS does not read it.
    std::fs::OpenOptions::new()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    disk
}

/// How often a counter disk says it was booted.
pub(crate) fn count(disk: &Path) -> u8 {
    std::fs::read(disk).unwrap()[512]
}
