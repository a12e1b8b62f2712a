//! Disk images from outside: their partitions, and harm done to them.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use vm::{find_program, for_each_extent};

/// The bytes of a partition, by its label.
///
/// # Errors
/// If the disk has no partition table, or no such partition.
pub fn partition(disk: &Path, label: &str) -> Result<Range<u64>> {
    let file = File::open(disk).with_context(|| format!("cannot read {}", disk.display()))?;
    let table = formats::gpt::read(&file, None).with_context(|| disk.display().to_string())?;
    let entry = table.by_label(label);
    let entry = entry.with_context(|| format!("{} has no partition {label}", disk.display()))?;
    Ok(entry.start..entry.end())
}

/// Writes over a part of a disk.
///
/// # Errors
/// If that fails.
pub fn overwrite(disk: &Path, offset: u64, content: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).open(disk);
    file.and_then(|file| file.write_all_at(content, offset))
        .with_context(|| format!("cannot write to {}", disk.display()))
}

/// Flips all bits of one byte.
///
/// # Errors
/// If that fails.
pub fn flip(disk: &Path, offset: u64) -> Result<()> {
    let mut byte = [0];
    File::open(disk)
        .and_then(|file| file.read_exact_at(&mut byte, offset))
        .with_context(|| format!("cannot read {}", disk.display()))?;
    overwrite(disk, offset, &[!byte[0]])
}

/// Copies a part of a disk to a file of its own; holes stay holes.
///
/// # Errors
/// If `to` exists, or reading or writing fails.
pub fn extract(disk: &Path, range: Range<u64>, to: &Path) -> Result<()> {
    let source = File::open(disk).with_context(|| format!("cannot read {}", disk.display()))?;
    let target = File::create_new(to).with_context(|| format!("cannot create {}", to.display()))?;
    target.set_len(range.end - range.start)?;
    for_each_extent(&source, |start, end| {
        let (mut at, end) = (start.max(range.start), end.min(range.end));
        let mut buffer = vec![0; 1 << 20];
        while at < end {
            let room = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            source.read_exact_at(&mut buffer[..room], at)?;
            target.write_all_at(&buffer[..room], at - range.start)?;
            at += room as u64;
        }
        Ok(())
    })
    .with_context(|| format!("cannot copy from {} to {}", disk.display(), to.display()))
}

/// Runs a tool of the host, which must succeed; gives what it prints. `package` is the Debian
/// package that has it.
///
/// # Errors
/// A missing tool names the package; one that fails is quoted.
pub fn tool(program: &str, package: &'static str, args: &[&str]) -> Result<String> {
    let path = find_program(program, package)?;
    let output = Command::new(path).args(args).env("LC_ALL", "C").output()?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {args:?}: {}: {out}{words}",
        output.status
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_copied_and_harmed() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::write(&disk, vec![1; 3 << 20]).unwrap();
        overwrite(&disk, 1 << 20, b"part").unwrap();
        flip(&disk, 1 << 20).unwrap();
        let part = folder.path().join("part");
        extract(&disk, 1 << 20..(1 << 20) + 5, &part).unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), [!b'p', b'a', b'r', b't', 1]);
        let error = format!("{:#}", partition(&disk, "cas").unwrap_err());
        assert!(error.contains("no partition table"), "{error}");
        assert!(tool("false", "coreutils", &["x"]).is_err());
    }
}
