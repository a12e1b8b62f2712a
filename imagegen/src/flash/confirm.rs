//! The question that saves the wrong disk.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};

use super::facts::Facts;

/// Who may answer.
pub(super) enum Answer<'a> {
    /// `--yes` was given with this.
    Given(&'a str),
    /// Somebody at a terminal.
    Ask(&'a mut dyn BufRead),
    /// Nobody.
    Nobody,
}

/// Whether the disk is meant: `Err` says, in words for the user, why it is not.
///
/// # Errors
/// The terminal cannot be read.
pub(super) fn confirm(facts: &Facts, answer: Answer<'_>) -> Result<Result<(), String>> {
    let word = facts.word();
    let path = facts.path.display();
    let kind = match facts.serial {
        Some(_) => "serial number",
        None => "name (it has no serial number)",
    };
    if facts.new {
        return Ok(Ok(()));
    }
    match answer {
        Answer::Given(given) if given.trim() == word => Ok(Ok(())),
        Answer::Given(given) => Ok(Err(format!(
            "--yes {given} is not {path}, whose {kind} is {word}"
        ))),
        Answer::Nobody => Ok(Err(format!(
            "nobody can be asked here; --yes {word} says that {path} is meant"
        ))),
        Answer::Ask(input) => {
            eprint!("\nAll that is on {path} will be lost. Type its {kind}, {word}, to go on: ");
            std::io::stderr().flush().context("cannot ask")?;
            let mut line = String::new();
            input
                .read_line(&mut line)
                .context("cannot read the answer")?;
            if line.trim() == word {
                return Ok(Ok(()));
            }
            Ok(Err(format!("that is not {word}")))
        }
    }
}
