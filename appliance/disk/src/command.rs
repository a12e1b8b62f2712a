//! Running a program of the image with a deadline, its output line by line.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Error;

/// Where the programs of the image are, whatever the caller's environment says.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a stopped program has to end by itself, and then to disappear.
const GRACE: Duration = Duration::from_secs(3);
/// How many of the last lines an error shows.
const TAIL: usize = 4;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Exit code or signal, in words.
    pub status: String,
    /// The last lines that it wrote, joined by `; `.
    pub tail: String,
}

/// Runs `program` with `arguments` and nothing but `PATH` and `environment`; `line` gets each line
/// that it writes to its standard output and error output. A program that has not ended after
/// `deadline` gets SIGTERM, then SIGKILL, and is left behind if even that does not end it (it hangs
/// in the kernel on a dead disk).
///
/// # Errors
///
/// [`Error::Start`] or [`Error::Deadline`]. How it ended is no error here.
pub fn run(
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
    deadline: Duration,
    line: &mut dyn FnMut(&str),
) -> Result<Outcome, Error> {
    let start = |cause| Error::Start {
        program: program.into(),
        cause,
    };
    let (mut reader, writer) = std::io::pipe().map_err(start)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer);
    let mut child = command.spawn().map_err(start)?;
    // The command holds the writing end of the pipe.
    drop(command);

    let end = Instant::now() + deadline;
    let mut tail: Vec<String> = Vec::new();
    let mut text = Vec::new();
    let mut open = true;
    loop {
        if open {
            open = read_some(&mut reader, &mut text, Duration::from_millis(200));
            while let Some(at) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                note(&text[..at], &mut tail, line);
                text.drain(..=at);
            }
        } else {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !open && let Some(status) = child.try_wait().map_err(start)? {
            note(&text, &mut tail, line);
            return Ok(outcome(status, &tail));
        }
        if Instant::now() >= end {
            // A grandchild may hold the pipe open after the program has ended.
            if let Some(status) = child.try_wait().map_err(start)? {
                return Ok(outcome(status, &tail));
            }
            stop(&mut child);
            return Err(Error::Deadline {
                program: program.into(),
                deadline,
            });
        }
    }
}

/// Like [`run`], but an exit code other than 0 is an error.
///
/// # Errors
///
/// As [`run`], and [`Error::Program`].
pub fn run_ok(
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
    deadline: Duration,
) -> Result<(), Error> {
    let outcome = run(program, arguments, environment, deadline, &mut |_| {})?;
    if outcome.code == Some(0) {
        return Ok(());
    }
    Err(Error::Program {
        program: program.into(),
        status: outcome.status,
        output: outcome.tail,
    })
}

/// Stops a child: SIGTERM, some seconds, SIGKILL, some seconds.
pub fn stop(child: &mut Child) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if !ended(child) {
        let _ = child.kill();
        ended(child);
    }
}

fn ended(child: &mut Child) -> bool {
    let end = Instant::now() + GRACE;
    while Instant::now() < end {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Reads what is there, waiting at most `patience`; `false` at the end.
fn read_some(reader: &mut std::io::PipeReader, text: &mut Vec<u8>, patience: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let ready = {
        let mut fds = [PollFd::new(reader, PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap_or(0)
    };
    if ready == 0 {
        return true;
    }
    let mut buffer = [0; 4096];
    match reader.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            text.extend_from_slice(&buffer[..count]);
            true
        }
    }
}

fn note(text: &[u8], tail: &mut Vec<String>, line: &mut dyn FnMut(&str)) {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    line(text);
    if tail.len() == TAIL {
        tail.remove(0);
    }
    tail.push(text.into());
}

fn outcome(status: ExitStatus, tail: &[String]) -> Outcome {
    Outcome {
        code: status.code(),
        status: status.to_string(),
        tail: tail.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> (Result<Outcome, Error>, Vec<String>) {
        let mut lines = Vec::new();
        let arguments = ["-c".to_owned(), script.to_owned()];
        let result = run("sh", &arguments, &[("X", "y")], deadline, &mut |line| {
            lines.push(line.into())
        });
        (result, lines)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_and_exit_code() {
        let (result, lines) = shell("echo a; echo b >&2; printf 'c%s' $X; exit 3", LONG);
        assert_eq!(lines, ["a", "b", "cy"]);
        let outcome = result.unwrap();
        assert_eq!((outcome.code, outcome.tail.as_str()), (Some(3), "a; b; cy"));
    }

    #[test]
    fn what_does_not_end_is_stopped() {
        let began = Instant::now();
        let (result, lines) = shell("echo begun; exec sleep 60", Duration::from_millis(300));
        assert!(matches!(result, Err(Error::Deadline { .. })), "{result:?}");
        assert_eq!(lines, ["begun"]);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_ignores_sigterm_is_killed() {
        let (result, _) = shell(
            "trap '' TERM; while :; do sleep 0.1; done",
            Duration::from_millis(200),
        );
        assert!(matches!(result, Err(Error::Deadline { .. })), "{result:?}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run_ok("no-such-program", &[], &[], LONG).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot start no-such-program"),
            "{error}"
        );
    }

    #[test]
    fn a_failure_shows_the_last_lines() {
        let script = [
            "-c".to_owned(),
            "for i in 1 2 3 4 5 6; do echo $i; done; exit 1".to_owned(),
        ];
        let error = run_ok("sh", &script, &[], LONG).unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 1): 3; 4; 5; 6");
    }
}
