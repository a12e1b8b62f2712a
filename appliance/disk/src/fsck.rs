//! File system checks with a deadline.

use std::path::Path;
use std::time::Duration;

use crate::{Error, command};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    Clean,
    /// Put right; the last lines of the program say what.
    Repaired(String),
    /// Beyond what may be put right without a person; the last lines of the program say why.
    Damaged(String),
}

/// Where the first copy of the superblock is with blocks of 4096 bytes, which is what mke2fs chooses
/// from 512 MiB up (ext4(5), "sparse_super").
const COPY: &[&str] = &["-b", "32768", "-B", "4096"];

/// Checks an ext4 that is not mounted, and repairs what is safe to repair (`e2fsck -p`; it replays
/// the journal). A superblock of which a power cut let only one of two sectors be written is taken
/// from its copy. `line` gets what e2fsck says.
///
/// # Errors
///
/// e2fsck is missing or did not end in time.
pub fn ext4(
    device: &Path,
    deadline: Duration,
    line: &mut dyn FnMut(&str),
) -> Result<Verdict, Error> {
    let mut check = |options: &[&str]| {
        let mut arguments = vec!["-p".to_owned()];
        arguments.extend(options.iter().copied().map(str::to_owned));
        arguments.push(device.display().to_string());
        command::run("e2fsck", &arguments, &[], deadline, line)
    };
    let outcome = check(&[])?;
    match outcome.code {
        Some(0) => return Ok(Verdict::Clean),
        // 2 asks for a reboot, which a mounted root would need.
        Some(1..=3) => return Ok(Verdict::Repaired(outcome.tail)),
        // It could not begin: no superblock that it trusts, or no device.
        Some(8) => {
            let second = check(COPY)?;
            if let Some(0..=3) = second.code {
                let tail = second.tail;
                return Ok(Verdict::Repaired(format!(
                    "the superblock was damaged and is taken from its copy; {tail}"
                )));
            }
        }
        _ => {}
    }
    Ok(Verdict::Damaged(format!(
        "{} ({})",
        outcome.tail, outcome.status
    )))
}

/// Checks a FAT file system that is not mounted, and repairs what is safe to repair
/// (`fsck.fat -a`). `line` gets what it says.
///
/// # Errors
///
/// fsck.fat is missing or did not end in time.
pub fn fat(
    device: &Path,
    deadline: Duration,
    line: &mut dyn FnMut(&str),
) -> Result<Verdict, Error> {
    let arguments = ["-a".to_owned(), device.display().to_string()];
    // What it says about code pages that the C library does not have means nothing here.
    let mut line = |text: &str| {
        if !["Cannot initialize conversion", "Using internal CP850"]
            .iter()
            .any(|p| text.starts_with(p))
        {
            line(text);
        }
    };
    let outcome = command::run("fsck.fat", &arguments, &[], deadline, &mut line)?;
    Ok(match outcome.code {
        Some(0) => Verdict::Clean,
        Some(1) => Verdict::Repaired(outcome.tail),
        _ => Verdict::Damaged(format!("{} ({})", outcome.tail, outcome.status)),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_torn_superblock_is_taken_from_its_copy_and_a_lost_one_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        let name = path.display().to_string();
        let options = ["-q", "-F", "-t", "ext4", &name].map(str::to_owned);
        let deadline = Duration::from_secs(300);
        let made = command::run("mke2fs", &options, &[], deadline, &mut |_| {}).unwrap();
        assert_eq!(made.code, Some(0), "{}", made.tail);
        let check = || ext4(&path, deadline, &mut |_| {}).unwrap();
        assert_eq!(check(), Verdict::Clean);

        // Its second sector is of another time.
        file.write_all_at(&[0xa5; 64], 1024 + 512).unwrap();
        let verdict = check();
        assert!(
            matches!(&verdict, Verdict::Repaired(what) if what.contains("taken from its copy")),
            "{verdict:?}"
        );
        assert_eq!(check(), Verdict::Clean);

        file.write_all_at(&[0xa5; 1024], 1024).unwrap();
        file.write_all_at(&[0xa5; 1024], 32768 * 4096).unwrap();
        assert!(matches!(check(), Verdict::Damaged(_)));
    }
}
