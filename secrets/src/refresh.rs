//! The refresh socket: how a running daemon reads its secrets anew, since a reload of systemd 257
//! fetches no credential, and how the shipper learns what to blot out.
//!
//! Questions are lines; an answer is a line, and bytes after it if the line ends in a length:
//!
//! | question | answers |
//! |---|---|
//! | `get CREDENTIAL` | `value LENGTH`, `absent`, `unavailable CLASS`, `denied` |
//! | `status` (root) | `status LENGTH` and JSON ([`crate::fetcher::Status`]), `denied` |
//! | `watch` (the shipper) | `denied`, or from then on `fingerprints LENGTH` and JSON ([`Fingerprints`]) at once and whenever there are new ones |
//! | `acknowledge NUMBER` (after `watch`) | none |
//!
//! Who asks is told by the control group of its process: a unit gets the credentials that the
//! manifest gives it, and no others. Anything else is answered `unknown`, and the connection ends.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::fetcher::Status;
use crate::fingerprint::{Fingerprint, Key};
use crate::secret::{LARGEST, Secret};

/// Where it is.
pub const SOCKET: &str = "/run/larder/refresh.sock";
/// Longest line, in bytes.
pub(crate) const LONGEST_LINE: usize = 1024;
/// Largest JSON, in bytes.
const LARGEST_JSON: usize = 16 * LARGEST;

/// What may be asked.
#[derive(Debug, PartialEq)]
pub(crate) enum Question<'a> {
    Get(&'a str),
    Status,
    Watch,
    Acknowledge(u64),
}

impl<'a> Question<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("get", credential)) if !credential.is_empty() => Some(Self::Get(credential)),
            Some(("acknowledge", number)) => number.parse().ok().map(Self::Acknowledge),
            None if line == "status" => Some(Self::Status),
            None if line == "watch" => Some(Self::Watch),
            _ => None,
        }
    }
}

/// What blots values out of logs; see [`crate::redact::Redactor`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Fingerprints {
    /// Number of the last value in them, to acknowledge.
    pub number: u64,
    /// The keys of the boot.
    pub key: Key,
    /// All fingerprints of the boot.
    pub fingerprints: Vec<Fingerprint>,
}

/// What there is of a credential now.
#[derive(Debug)]
pub enum Current {
    /// This value.
    Value(Secret),
    /// None: it is optional, or was withdrawn.
    Absent,
    /// None yet, for this reason: keep the old one and ask again later.
    Unavailable(String),
}

/// Why the socket did not help.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The socket does not answer.
    #[error("{path}: {source}; is larder-secrets.service running?")]
    Socket {
        /// The socket.
        path: String,
        /// What failed.
        source: std::io::Error,
    },
    /// The asking unit has no right to it.
    #[error("{path}: {asked} is denied to this unit; secrets/manifest.toml says who gets what")]
    Denied {
        /// The socket.
        path: String,
        /// What was asked.
        asked: String,
    },
    /// The answer does not follow the protocol.
    #[error("{path}: the answer to {asked} does not follow the protocol")]
    Protocol {
        /// The socket.
        path: String,
        /// What was asked.
        asked: String,
    },
    /// There is no memory for the value.
    #[error(transparent)]
    Memory(#[from] crate::MemoryError),
}

/// A connection to the socket.
pub struct Client {
    path: String,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    pub async fn connect(path: &Path) -> Result<Self, RefreshError> {
        let name = path.display().to_string();
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Self {
                path: name,
                // A larger buffer would keep a copy of what passes through it.
                stream: BufReader::with_capacity(1, stream),
            }),
            Err(source) => Err(RefreshError::Socket { path: name, source }),
        }
    }

    /// The current value of a credential of the unit that this process belongs to.
    pub async fn get(&mut self, credential: &str) -> Result<Current, RefreshError> {
        let asked = format!("get {credential}");
        self.ask(&asked).await?;
        let line = self.line().await?;
        match line.split_once(' ') {
            Some(("value", length)) => {
                let bytes = self.body(length, LARGEST, &asked).await?;
                Ok(Current::Value(Secret::take(bytes)?))
            }
            Some(("unavailable", class)) => Ok(Current::Unavailable(class.into())),
            None if line == "absent" => Ok(Current::Absent),
            _ => Err(self.refused(&line, asked)),
        }
    }

    /// How all secrets are; root only.
    pub async fn status(&mut self) -> Result<Status, RefreshError> {
        self.ask("status").await?;
        let line = self.line().await?;
        match line.split_once(' ') {
            Some(("status", length)) => self.json(length, "status").await,
            _ => Err(self.refused(&line, "status".into())),
        }
    }

    /// Begins to watch fingerprints; the shipper only. Then call [`Client::fingerprints`].
    pub async fn watch(&mut self) -> Result<(), RefreshError> {
        self.ask("watch").await
    }

    /// Waits for fingerprints: all of them, each time. Apply them, then acknowledge.
    pub async fn fingerprints(&mut self) -> Result<Fingerprints, RefreshError> {
        let line = self.line().await?;
        match line.split_once(' ') {
            Some(("fingerprints", length)) => self.json(length, "watch").await,
            _ => Err(self.refused(&line, "watch".into())),
        }
    }

    /// Says that all values up to this number will be blotted out.
    pub async fn acknowledge(&mut self, number: u64) -> Result<(), RefreshError> {
        self.ask(&format!("acknowledge {number}")).await
    }

    fn broken(&self, source: std::io::Error) -> RefreshError {
        RefreshError::Socket {
            path: self.path.clone(),
            source,
        }
    }

    fn refused(&self, line: &str, asked: String) -> RefreshError {
        let path = self.path.clone();
        match line {
            "denied" => RefreshError::Denied { path, asked },
            _ => RefreshError::Protocol { path, asked },
        }
    }

    async fn ask(&mut self, question: &str) -> Result<(), RefreshError> {
        let line = format!("{question}\n");
        let sent = self.stream.get_mut().write_all(line.as_bytes()).await;
        sent.map_err(|error| self.broken(error))
    }

    async fn line(&mut self) -> Result<String, RefreshError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LONGEST_LINE as u64);
        let read = limited.read_until(b'\n', &mut line).await;
        read.map_err(|error| self.broken(error))?;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).into_owned()),
            _ => Err(self.broken(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    async fn body(
        &mut self,
        length: &str,
        limit: usize,
        asked: &str,
    ) -> Result<Zeroizing<Vec<u8>>, RefreshError> {
        let length = length.parse().ok().filter(|length| *length <= limit);
        let Some(length) = length else {
            return Err(self.refused("", asked.into()));
        };
        let mut bytes = Zeroizing::new(vec![0; length]);
        let read = self.stream.read_exact(&mut bytes).await;
        read.map_err(|error| self.broken(error))?;
        Ok(bytes)
    }

    async fn json<T: serde::de::DeserializeOwned>(
        &mut self,
        length: &str,
        asked: &str,
    ) -> Result<T, RefreshError> {
        let bytes = self.body(length, LARGEST_JSON, asked).await?;
        serde_json::from_slice(&bytes).map_err(|_| self.refused("", asked.into()))
    }
}
