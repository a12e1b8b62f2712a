//! The serial console as text, and how long to wait for something on it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

/// How long a wait goes on. There is no limit in wall time: a busy host is slow, not broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// Give up when nothing new has appeared for this long.
    pub quiet: Duration,
    /// Give up when QEMU has used this many CPU seconds since its start.
    pub cpu_seconds: f64,
}

impl Default for Patience {
    /// Two quiet minutes, 300 CPU seconds: some ten times what a boot takes without KVM.
    fn default() -> Patience {
        Patience {
            quiet: Duration::from_secs(120),
            cpu_seconds: 300.0,
        }
    }
}

/// A pattern that was found on the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which of the patterns, by index.
    pub pattern: usize,
    /// The line it is in, as far as it has come.
    pub line: String,
}

/// Follows the log file of a serial port. Escape sequences, carriage returns and other control
/// characters are left out, so that text can be searched.
#[derive(Debug)]
pub(crate) struct Serial {
    path: PathBuf,
    file: File,
    cleaner: Cleaner,
    text: String,
    cursor: usize,
}

impl Serial {
    /// Opens the log, which must exist, and skips `skip` bytes (an earlier run's).
    pub(crate) fn open(path: &Path, skip: u64) -> Result<Serial> {
        let mut file = File::open(path).map_err(Error::file("read", path))?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(skip))
            .map_err(Error::file("seek in", path))?;
        Ok(Serial {
            path: path.to_owned(),
            file,
            cleaner: Cleaner::default(),
            text: String::new(),
            cursor: 0,
        })
    }

    /// Reads what is new and says whether there was any.
    pub(crate) fn refresh(&mut self) -> Result<bool> {
        let mut fresh = Vec::new();
        self.file
            .read_to_end(&mut fresh)
            .map_err(Error::file("read", &self.path))?;
        self.cleaner.clean(&fresh, &mut self.text);
        Ok(!fresh.is_empty())
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The last `lines` lines.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let text = self.text.trim_end();
        let start = text
            .rmatch_indices('\n')
            .nth(lines.saturating_sub(1))
            .map_or(0, |(at, _)| at + 1);
        text[start..].to_owned()
    }

    /// The first occurrence of any pattern behind the last one that was found.
    pub(crate) fn find(&mut self, patterns: &[&str]) -> Option<Found> {
        let rest = &self.text[self.cursor..];
        let (at, pattern) = patterns
            .iter()
            .enumerate()
            .filter_map(|(index, pattern)| rest.find(pattern).map(|at| (at, index)))
            .min()?;
        let at = self.cursor + at;
        self.cursor = at + patterns[pattern].len();
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[self.cursor..]
            .find('\n')
            .map_or(self.text.len(), |n| self.cursor + n);
        Some(Found {
            pattern,
            line: self.text[start..end].to_owned(),
        })
    }

    /// From here on only what is new is found.
    pub(crate) fn skip_to_end(&mut self) {
        self.cursor = self.text.len();
    }
}

/// Takes ECMA-48 escape sequences and control characters out of a stream of bytes.
#[derive(Debug, Default)]
struct Cleaner {
    state: State,
    /// Bytes of an unfinished UTF-8 character.
    pending: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Text,
    Escape,
    /// `ESC [` up to a byte 0x40..=0x7e.
    Control,
    /// `ESC ]`, `ESC P`, `ESC X`, `ESC ^`, `ESC _` up to BEL or `ESC \`.
    String,
}

impl Cleaner {
    fn clean(&mut self, bytes: &[u8], out: &mut String) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                // From any state: an escape starts anew (in a string it starts the terminator).
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
                // Intermediate bytes of a longer escape such as `ESC ( B`.
                (State::Escape, 0x20..=0x2f) => State::Escape,
                (State::Escape, _) => State::Text,
                (State::Control, 0x40..=0x7e) => State::Text,
                // A line end ends a broken sequence: better some rubbish than a lost log.
                (State::Control | State::String, b'\n') => {
                    self.pending.push(byte);
                    State::Text
                }
                (State::String, 0x07) => State::Text,
                (State::Control, _) => State::Control,
                (State::String, _) => State::String,
                (State::Text, b'\n' | b'\t' | 0x20..=0x7e | 0x80..) => {
                    self.pending.push(byte);
                    State::Text
                }
                (State::Text, _) => State::Text,
            };
        }
        self.flush(out);
    }

    /// Moves whole characters from `pending` to `out`.
    fn flush(&mut self, out: &mut String) {
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            out.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            // An unfinished character at the very end may be finished by the next bytes.
            let at_end = done + invalid.len() == self.pending.len();
            if invalid.is_empty() || (at_end && invalid.len() < 4 && unfinished(invalid)) {
                break;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.pending.drain(..done);
    }
}

/// Whether `bytes` could be the start of a UTF-8 character.
fn unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(chunks: &[&[u8]]) -> String {
        let (mut cleaner, mut out) = (Cleaner::default(), String::new());
        for chunk in chunks {
            cleaner.clean(chunk, &mut out);
        }
        out
    }

    #[test]
    fn colours_and_cursor_movement_are_left_out() {
        assert_eq!(
            clean(&[b"\x1b[2J\x1b[01;01H[\x1b[0;32m  OK  \x1b[0m] Started \x1b[1mx\x1b(B\r\n"]),
            "[  OK  ] Started x\n"
        );
        assert_eq!(clean(&[b"a\x1b]0;title\x07b\x1bPq\x1b\\c"]), "abc");
    }

    #[test]
    fn pieces_of_any_size_give_the_same_text() {
        let log = "Grüße \u{1F980}\x1b[0;32mok\x1b[0m\r\nnext\n".as_bytes();
        let whole = clean(&[log]);
        assert_eq!(whole, "Grüße \u{1F980}ok\nnext\n");
        for cut in 0..log.len() {
            assert_eq!(clean(&[&log[..cut], &log[cut..]]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = log.chunks(1).collect();
        assert_eq!(clean(&single), whole);
    }

    #[test]
    fn broken_text_and_sequences_do_not_eat_the_log() {
        assert_eq!(clean(&[b"a\xff\xfeb"]), "a\u{fffd}\u{fffd}b");
        assert_eq!(clean(&[b"a\xe2\x82", b"x"]), "a\u{fffd}x");
        assert_eq!(clean(&[b"\x1b[999\nkept\n"]), "\nkept\n");
        assert_eq!(clean(&[b"\x1b]endless\nkept\n"]), "\nkept\n");
    }

    #[test]
    fn find_goes_on_behind_the_last_match() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        std::fs::write(&path, "earlier run\nstep one\nstep two\nlast lin").unwrap();
        let mut serial = Serial::open(&path, 12).unwrap();
        assert!(serial.refresh().unwrap());
        assert!(!serial.refresh().unwrap());
        assert_eq!(serial.find(&["earlier"]), None);
        let found = serial.find(&["two", "one"]).unwrap();
        assert_eq!(
            found,
            Found {
                pattern: 1,
                line: "step one".into()
            }
        );
        assert_eq!(serial.find(&["one"]), None);
        assert_eq!(serial.find(&["two"]).unwrap().line, "step two");
        assert_eq!(serial.tail(2), "step two\nlast lin");
        assert_eq!(serial.tail(99), "step one\nstep two\nlast lin");
        serial.skip_to_end();
        assert_eq!(serial.find(&["last"]), None);
    }
}
