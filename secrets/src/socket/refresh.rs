//! The server of the refresh socket; its protocol and client are in [`crate::refresh`].

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use zeroize::Zeroizing;

use super::peer::Origins;
use super::{WRITE, accept};
use crate::fetcher::{Fetcher, Reply};
use crate::manifest::Consumer;
use crate::refresh::{Fingerprints, LONGEST_LINE, Question};

/// Serves the refresh socket.
pub struct RefreshServer {
    /// Has the values.
    pub fetcher: Fetcher,
    /// Tells who asks.
    pub origins: Arc<dyn Origins>,
    /// User id that may ask for the status: 0, but for tests.
    pub user: u32,
    /// The unit that blots values out of logs.
    pub watcher: String,
}

impl RefreshServer {
    /// Answers until it is dropped.
    pub async fn run(self: Arc<Self>, listener: UnixListener) {
        accept(&listener, |stream| {
            let server = self.clone();
            async move {
                // A peer that went away has what it wants.
                let _ = server.serve(stream).await;
            }
        })
        .await;
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        // Looked up once: a process does not change its unit.
        let unit = self.origins.unit(&stream).unwrap_or_default();
        let user = stream.peer_cred()?.uid();
        let (reader, mut stream) = stream.into_split();
        let mut lines = Lines {
            reader,
            pending: Vec::new(),
        };
        while let Some(line) = lines.next().await? {
            match Question::parse(&line) {
                Some(Question::Get(credential)) => {
                    let consumer = Consumer {
                        unit: unit.clone(),
                        credential: credential.into(),
                    };
                    self.get(&mut stream, &consumer).await?;
                }
                Some(Question::Status) if user == self.user => {
                    let status = serde_json::to_vec(&self.fetcher.status())?;
                    send(&mut stream, &format!("status {}", status.len()), &status).await?;
                }
                Some(Question::Watch) if unit == self.watcher => {
                    return self.watch(lines, stream, &unit).await;
                }
                Some(_) => {
                    self.fetcher.denied();
                    log::warn!("refresh socket: {line:?} of user {user} in {unit:?} is denied");
                    send(&mut stream, "denied", b"").await?;
                }
                None => return send(&mut stream, "unknown", b"").await,
            }
        }
        Ok(())
    }

    async fn get(&self, stream: &mut OwnedWriteHalf, consumer: &Consumer) -> std::io::Result<()> {
        match self.fetcher.current(consumer).await {
            Ok(Reply::Value(value)) => {
                // Some look every half minute.
                log::debug!("{consumer}: read anew");
                let head = format!("value {}", value.len());
                send(stream, &head, value.expose()).await
            }
            Ok(Reply::Absent) => send(stream, "absent", b"").await,
            Ok(Reply::Denied | Reply::Fail) => {
                // A daemon asks for whatever it could use.
                log::debug!("{consumer}: denied: the manifest does not give it");
                send(stream, "denied", b"").await
            }
            Err(class) => send(stream, &format!("unavailable {class}"), b"").await,
        }
    }

    /// Sends fingerprints whenever there are new ones, and takes acknowledgements.
    async fn watch(
        &self,
        mut lines: Lines,
        mut stream: OwnedWriteHalf,
        unit: &str,
    ) -> std::io::Result<()> {
        let blotting = self.fetcher.blotting();
        let mut watcher = blotting.watch(unit);
        loop {
            tokio::select! {
                () = watcher.next() => {
                    let (number, fingerprints) = blotting.all();
                    let all = Fingerprints {
                        number,
                        key: blotting.key().clone(),
                        fingerprints,
                    };
                    let text = Zeroizing::new(serde_json::to_vec(&all)?);
                    send(&mut stream, &format!("fingerprints {}", text.len()), &text).await?;
                }
                line = lines.next() => match line? {
                    Some(line) => match Question::parse(&line) {
                        Some(Question::Acknowledge(number)) => watcher.acknowledge(number),
                        _ => return send(&mut stream, "unknown", b"").await,
                    },
                    None => return Ok(()),
                },
            }
        }
    }
}

/// Lines of bounded length.
struct Lines {
    reader: OwnedReadHalf,
    /// What came of the next ones.
    pending: Vec<u8>,
}

impl Lines {
    /// A line without its end. `None`: there are no more. Nothing is lost if it is cancelled.
    async fn next(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.drain(..=end);
                let line: Vec<u8> = line.take(end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.pending.len() >= LONGEST_LINE {
                return Err(std::io::Error::other("a line that is too long"));
            }
            if self.reader.read_buf(&mut self.pending).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn send(stream: &mut OwnedWriteHalf, head: &str, body: &[u8]) -> std::io::Result<()> {
    let write = async {
        stream.write_all(format!("{head}\n").as_bytes()).await?;
        stream.write_all(body).await
    };
    tokio::time::timeout(WRITE, write).await?
}
