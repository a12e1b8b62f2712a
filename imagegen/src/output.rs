//! Printing what a verb found.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Prints `text`. A reader that has seen enough (`… | head`) is no error.
///
/// # Errors
/// Standard output cannot be written to, because of a full disk for instance.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

/// Prints `value` as JSON, with a newline.
///
/// # Errors
/// As for [`print`].
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}
