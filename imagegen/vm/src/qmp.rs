//! A small QMP client: JSON lines over a unix socket (QEMU's docs/interop/qmp-spec).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Error, Result};

/// How long QEMU may think about a command. It answers from its main loop, within milliseconds
/// unless the host is badly loaded.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// An event that QEMU has reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Name: `SHUTDOWN`, `RESET`, `WATCHDOG`, `STOP`, `RESUME`, …
    pub name: String,
    /// Its data: `{"guest":true,"reason":"guest-reset"}`.
    pub data: Value,
}

/// A conversation with one QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Connects, reads the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    /// [`Error::Qmp`] if nobody listens or what answers is not QMP.
    pub fn connect(path: &Path) -> Result<Qmp> {
        let doing = || format!("connecting to {}", path.display());
        let stream = UnixStream::connect(path).map_err(|source| Error::Qmp {
            doing: doing(),
            source,
        })?;
        let mut qmp = Qmp {
            stream,
            buffer: Vec::new(),
            events: VecDeque::new(),
        };
        let greeting = qmp
            .message(Instant::now() + COMMAND_TIMEOUT)
            .map_err(|source| Error::Qmp {
                doing: doing(),
                source,
            })?;
        if greeting
            .as_ref()
            .is_none_or(|greeting| greeting.get("QMP").is_none())
        {
            let source = io::Error::other(format!("not QMP's greeting: {greeting:?}"));
            return Err(Error::Qmp {
                doing: doing(),
                source,
            });
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives its return value. Events that come in between are kept.
    ///
    /// # Errors
    /// [`Error::Refused`] with QEMU's words, [`Error::Qmp`] if the connection is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let broken = |source| Error::Qmp {
            doing: command.to_owned(),
            source,
        };
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).map_err(broken)?;
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let Some(mut message) = self.message(deadline).map_err(broken)? else {
                return Err(broken(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
            };
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                let why = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given");
                return Err(Error::Refused {
                    command: command.to_owned(),
                    why: why.to_owned(),
                });
            }
            self.keep_event(message);
        }
    }

    /// Runs a command of the human monitor; what it prints is the answer.
    ///
    /// # Errors
    /// As [`Qmp::execute`]. A refusal of the human monitor is text, not an error.
    pub fn human(&mut self, command: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Takes what has come in and gives the oldest event, if there is one. Does not wait.
    ///
    /// # Errors
    /// [`Error::Qmp`] if the connection broke; the end of QEMU is no error here.
    pub fn poll_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.message(Instant::now()) {
                Ok(Some(message)) => self.keep_event(message),
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(source) => {
                    return Err(Error::Qmp {
                        doing: "reading events".into(),
                        source,
                    });
                }
            }
        }
    }

    fn keep_event(&mut self, message: Value) {
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let data = message.get("data").cloned().unwrap_or(Value::Null);
            self.events.push_back(Event {
                name: name.to_owned(),
                data,
            });
        }
    }

    /// The next line as JSON; `None` once the deadline has passed.
    fn message(&mut self, deadline: Instant) -> io::Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.buffer.len() > 16 << 20 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line without end",
                ));
            }
            // A time-out of zero would mean for ever.
            let left = deadline.saturating_duration_since(Instant::now());
            let expired = left.is_zero();
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if expired => {
                        return Ok(None);
                    }
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers each line with the next of `answers`.
    fn double(answers: Vec<&'static str>) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for (index, answer) in answers.iter().enumerate() {
                // The greeting comes unasked; the last answer is followed by hanging up.
                if index > 0 && lines.next().is_none() {
                    return;
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (folder, path)
    }

    #[test]
    fn events_between_question_and_answer_are_kept() {
        let (_folder, path) = double(vec![
            "{\"QMP\": {\"version\": {}}}\r\n",
            "{\"return\": {}}\r\n",
            "{\"event\": \"RESET\", \"data\": {\"guest\": true}}\r\n\r\n{\"ret",
        ]);
        let mut qmp = Qmp::connect(&path).unwrap();
        // The double sends the second half of its answer and hangs up.
        let error = qmp.execute("query-status", json!({})).unwrap_err();
        assert!(error.to_string().contains("query-status"), "{error}");
        let event = qmp.poll_event().unwrap().unwrap();
        assert_eq!(
            (event.name.as_str(), &event.data["guest"]),
            ("RESET", &json!(true))
        );
        assert_eq!(qmp.poll_event().unwrap(), None);
    }

    #[test]
    fn a_refusal_carries_the_words() {
        let (_folder, path) = double(vec![
            "{\"QMP\": {}}\n",
            "{\"return\": {}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such node\"}}\n",
        ]);
        let mut qmp = Qmp::connect(&path).unwrap();
        let error = qmp.execute("block_resize", json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refuses block_resize: no such node");
    }

    #[test]
    fn what_is_not_qmp_is_refused() {
        for greeting in ["SSH-2.0-OpenSSH\n", "{}\n", "[1]\n", "\u{0}\n"] {
            let (_folder, path) = double(vec![greeting]);
            assert!(Qmp::connect(&path).is_err(), "{greeting:?} passed for QMP");
        }
        assert!(Qmp::connect(Path::new("/nonexistent")).is_err());
    }
}
