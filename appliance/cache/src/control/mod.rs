//! The control socket: what the person on call asks the running service, by `appliance cache`.
//!
//! A Unix socket that only root can reach. A question is one line of JSON, answers are lines of
//! JSON ([`Line`]), the last of which is [`Line::Done`] or [`Line::Failed`].

mod key;
mod purge;
mod questions;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::server::Shared;

/// Longest question in bytes.
const LONGEST: u64 = 64 * 1024;
/// Longest wait for it, or for room in the socket.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines on their way.
const LINES: usize = 256;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Objects, oldest first.
    Ls {
        /// Which.
        filter: Filter,
    },
    /// Everything that is known of one object.
    Explain {
        /// Its key, as `ls` prints it.
        key: String,
    },
    /// How full the store is; by project as well, which reads the head of every object.
    Usage {
        /// By project as well.
        projects: bool,
    },
    /// Removes objects.
    Purge {
        /// Which; an empty filter is refused.
        filter: Filter,
        /// Only say which.
        dry_run: bool,
    },
    /// Reads every byte of the objects and says what is damaged or not what its id says.
    Verify {
        /// Which.
        filter: Filter,
    },
}

/// Which objects: those for which all that is given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The one of this key, as `ls` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Those of an account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Those of a project, `account/project`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Those of a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Those written with a token, by its fingerprint (16 hex digits), or by a subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// Those written since, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// An object.
    Object(Object),
    /// How full the store is.
    Usage(Usage),
    /// What a project holds.
    Project {
        /// `account/project`.
        project: String,
        /// Number of objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Something is wrong with an object.
    Problem {
        /// Its key.
        key: String,
        /// What.
        what: String,
    },
    /// All is said.
    Done {
        /// Objects that were found, removed or verified.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// It could not be done, or not to its end.
    Failed {
        /// Why.
        why: String,
    },
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its key, as questions take it.
    pub key: String,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was stored, ms since 1970.
    pub time: u64,
    /// Fingerprint of the token that stored it.
    pub fingerprint: String,
    /// The subject of that token.
    pub subject: String,
    /// Id of the request that stored it.
    pub request: String,
    /// SHA-256, if the uploader declared it.
    pub sha256: Option<String>,
    /// Hash of the content, as ETag shows it.
    pub content: String,
    /// Whether it is pinned.
    pub pinned: bool,
    /// The uploader's note.
    pub note: String,
}

/// How full the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How the store is, in words.
    pub status: String,
    /// Whether the index is whole.
    pub recovered: bool,
    /// Objects in the index.
    pub objects: u64,
    /// Bytes of memory of the index.
    pub index_bytes: u64,
    /// Bytes of segments and files.
    pub used: u64,
    /// Most bytes of them.
    pub capacity: u64,
    /// Bytes of pinned objects.
    pub pinned: u64,
    /// Uploads in parts that are open.
    pub sessions: u64,
    /// Bytes in them.
    pub unfinished: u64,
    /// What happened since the start, by name.
    pub counts: Vec<(String, u64)>,
}

/// Where lines of an answer go.
#[derive(Clone, Debug)]
struct Answers(mpsc::Sender<Line>);

impl Answers {
    /// From a thread that may wait. `false`: nobody listens any more.
    fn say(&self, line: Line) -> bool {
        self.0.blocking_send(line).is_ok()
    }

    async fn tell(&self, line: Line) -> bool {
        self.0.send(line).await.is_ok()
    }
}

/// Answers on a socket, for ever.
pub(crate) async fn serve(shared: Arc<Shared>, socket: UnixListener) {
    let listener = socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(socket));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return log::error!("no control socket: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(Arc::clone(&shared), stream));
            }
            Err(error) => {
                log::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, mut stream: UnixStream) {
    let (reader, mut writer) = stream.split();
    let mut text = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut text)).await;
    if !matches!(read, Ok(Ok(1..))) {
        return;
    }
    let (sender, mut lines) = mpsc::channel(LINES);
    match serde_json::from_str::<Question>(&text) {
        Ok(question) => {
            log::info!("the control socket is asked: {}", text.trim());
            tokio::spawn(questions::answer(shared, question, Answers(sender)));
        }
        Err(error) => {
            let why = format!("the question is none: {error}");
            // There is room in an empty channel.
            let _ = sender.try_send(Line::Failed { why });
            drop(sender);
        }
    }
    while let Some(line) = lines.recv().await {
        // Of strings and numbers only: always possible.
        let Ok(mut text) = serde_json::to_string(&line) else {
            return;
        };
        text.push('\n');
        let written = tokio::time::timeout(PATIENCE, writer.write_all(text.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_one_line_of_json() {
        let question = Question::Purge {
            filter: Filter {
                writer: Some("ba7816bf8f01cfea".into()),
                since: Some(7),
                ..Filter::default()
            },
            dry_run: true,
        };
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(
            text,
            r#"{"ask":"purge","filter":{"writer":"ba7816bf8f01cfea","since":7},"dry_run":true}"#
        );
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
        // A word that is not known would leave a filter wider than it was meant.
        let typo = r#"{"ask":"purge","filter":{"writers":"a"},"dry_run":false}"#;
        assert!(serde_json::from_str::<Question>(typo).is_err());
    }
}
