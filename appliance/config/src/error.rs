//! What is wrong in a configuration file, with the place and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// Where in it; `None` if it could not be read.
    pub at: Option<At>,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters that are wrong, at least 1.
    pub width: usize,
    /// The line's text, without control characters.
    pub text: String,
}

impl At {
    /// The place of a span of bytes; a span over several lines ends with its first one.
    pub(crate) fn new(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start.min(text.len()));
        let end = floor(text, span.end.clamp(start, text.len()));
        let head = &text[..start];
        let begin = head.rfind('\n').map_or(0, |at| at + 1);
        let line = text[begin..].lines().next().unwrap_or("");
        let marked = text[start..end].lines().next().unwrap_or("");
        Self {
            line: head.matches('\n').count() + 1,
            column: text[begin..start].chars().count() + 1,
            width: marked.trim_end().chars().count().max(1),
            text: line.chars().map(printable).collect(),
        }
    }
}

impl At {
    /// Hides the value: what is not before the first `=` nor outside of the place.
    pub(crate) fn redact(&mut self) {
        let keep = match self.text.split_once('=') {
            Some((key, _)) => key.chars().count() + 2,
            None => self.column - 1,
        };
        self.text = self.text.chars().take(keep).chain(['…']).collect();
        if self.column > keep {
            (self.column, self.width) = (keep + 1, 1);
        } else {
            self.width = self.width.min(keep + 1 - self.column).max(1);
        }
    }
}

/// The start of the character that the byte `at` is in.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let Some(at) = &self.at else {
            write!(f, "{file}: {}", self.message)?;
            return match self.hint.as_str() {
                "" => Ok(()),
                hint => write!(f, "\n  = {hint}"),
            };
        };
        let number = at.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{file}:{number}:{}: {}", at.column, self.message)?;
        writeln!(f, "  {number} | {}", at.text)?;
        let before = " ".repeat(at.column - 1);
        write!(f, "  {margin} | {before}{}", "^".repeat(at.width))?;
        match self.hint.as_str() {
            "" => Ok(()),
            hint => write!(f, "\n  {margin} = {hint}"),
        }
    }
}

impl std::error::Error for Error {}

/// Everything that is wrong in the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        match self.0.len() {
            1 => Ok(()),
            count => write!(f, "\n\n{count} errors"),
        }
    }
}

impl std::error::Error for Errors {}
