//! Children of stage1: what may hang in the kernel on a broken device.
//!
//! A child is this program with the name of its duty as first argument. It answers on its standard
//! output: bytes ([`read`]) or lines (the other duties).

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Does the duty that the first argument names, if it names one. Returns the exit status.
pub(crate) fn dispatch() -> Option<i32> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker-modules", start] => Some(crate::modules::work(start)),
        ["worker-read", path, ranges @ ..] => Some(read(path, ranges)),
        ["worker-state", device] => Some(crate::state::work(Path::new(device))),
        _ => None,
    }
}

/// Duty `worker-read`: writes the bytes of each range `OFFSET+LENGTH` of a device.
fn read(path: &str, ranges: &[&str]) -> i32 {
    let all = || -> std::io::Result<Vec<u8>> {
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        for range in ranges {
            let parsed = range.split_once('+').and_then(|(offset, length)| {
                Some((offset.parse::<u64>().ok()?, length.parse::<usize>().ok()?))
            });
            let (offset, length) = parsed.ok_or(std::io::ErrorKind::InvalidInput)?;
            let start = bytes.len();
            bytes.resize(start + length, 0);
            file.read_exact_at(&mut bytes[start..], offset)?;
        }
        Ok(bytes)
    };
    let mut stdout = std::io::stdout();
    // Nobody flushes at the end of a program whose entry point is not Rust's.
    let written = all()
        .and_then(|bytes| stdout.write_all(&bytes))
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => 0,
        Err(error) => {
            // The exit status carries the reason, the output only whole answers.
            error
                .raw_os_error()
                .filter(|code| (1..=254).contains(code))
                .unwrap_or(255)
        }
    }
}

/// Starts a child that reads ranges (offset and length in bytes) of a device.
pub(crate) fn start_read(path: &Path, ranges: &[(u64, usize)]) -> std::io::Result<Worker> {
    let mut arguments = vec!["worker-read".to_owned(), path.display().to_string()];
    arguments.extend(
        ranges
            .iter()
            .map(|(offset, length)| format!("{offset}+{length}")),
    );
    Worker::start(&arguments)
}

/// A child at work.
pub(crate) struct Worker {
    child: Child,
    output: Vec<u8>,
    open: bool,
}

/// What [`Worker::line`] saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Line(String),
    Nothing,
    End,
}

impl Worker {
    /// Starts this program anew with these arguments.
    pub(crate) fn start(arguments: &[String]) -> std::io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            child,
            output: Vec::new(),
            open: true,
        })
    }

    /// Takes in what the child has written, waiting at most `patience` for something new.
    fn take_in(&mut self, patience: Duration) {
        let Some(stdout) = self.child.stdout.as_mut().filter(|_| self.open) else {
            return;
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let ready = {
            let mut fds = [PollFd::new(stdout, PollFlags::IN)];
            poll(&mut fds, Some(&timeout)).unwrap_or(0)
        };
        if ready == 0 {
            return;
        }
        let mut buffer = [0; 65536];
        match stdout.read(&mut buffer) {
            Ok(0) | Err(_) => self.open = false,
            Ok(count) => self.output.extend_from_slice(&buffer[..count]),
        }
    }

    /// The next line, waiting at most `patience`.
    pub(crate) fn line(&mut self, patience: Duration) -> Said {
        let end = Instant::now() + patience;
        loop {
            if let Some(at) = self.output.iter().position(|&byte| byte == b'\n') {
                let line = String::from_utf8_lossy(&self.output[..at]).into_owned();
                self.output.drain(..=at);
                return Said::Line(line);
            }
            if !self.open {
                return Said::End;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Said::Nothing;
            }
            self.take_in(left);
        }
    }

    /// All that a child wrote, once it has ended well; does not wait.
    pub(crate) fn finished(&mut self) -> Option<std::io::Result<Vec<u8>>> {
        while self.open {
            let before = self.output.len();
            self.take_in(Duration::ZERO);
            if self.open && self.output.len() == before {
                return None;
            }
        }
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) if status.success() => Some(Ok(std::mem::take(&mut self.output))),
            Ok(Some(status)) => Some(Err(match status.code() {
                Some(code) if (1..=254).contains(&code) => std::io::Error::from_raw_os_error(code),
                _ => std::io::Error::other(status.to_string()),
            })),
            Err(error) => Some(Err(error)),
        }
    }

    /// Ends the child if it can be ended; one that is stuck in the kernel is left behind.
    pub(crate) fn stop(mut self) {
        if self.open {
            disk::command::stop(&mut self.child);
        } else {
            let _ = self.child.wait();
        }
    }
}
