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

/// Checks an ext4 that is not mounted, and repairs what is safe to repair (`e2fsck -p`; it replays
/// the journal). `line` gets what e2fsck says.
///
/// # Errors
///
/// e2fsck is missing or did not end in time.
pub fn ext4(
    device: &Path,
    deadline: Duration,
    line: &mut dyn FnMut(&str),
) -> Result<Verdict, Error> {
    let arguments = ["-p".to_owned(), device.display().to_string()];
    let outcome = command::run("e2fsck", &arguments, &[], deadline, line)?;
    Ok(match outcome.code {
        Some(0) => Verdict::Clean,
        // 2 asks for a reboot, which a mounted root would need.
        Some(1..=3) => Verdict::Repaired(outcome.tail),
        _ => Verdict::Damaged(format!("{} ({})", outcome.tail, outcome.status)),
    })
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
