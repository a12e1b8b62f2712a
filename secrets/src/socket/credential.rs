//! What `LoadCredential=ID:SOCKET` speaks (systemd.exec(5)): PID 1's child connects from a name that
//! says unit and credential, and reads until the end. There are no requests and no errors, so:
//!
//! - nothing at all is an empty credential, which our daemons read as absent;
//! - more than 1 MiB makes systemd fail the unit (243/CREDENTIALS): so a unit is kept from starting
//!   without a secret that it needs. It is not said sooner than the unit was made to wait, and the
//!   limit of starts is never hit for good.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use super::peer::{Origins, parse_name};
use super::{WRITE, accept};
use crate::fetcher::{Fetcher, Reply};
use crate::manifest::Consumer;
use crate::secret::LARGEST;

/// Tells the current start of a unit.
pub type Starts = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Serves the credential socket.
pub struct CredentialServer {
    /// Has the values.
    pub fetcher: Fetcher,
    /// Tells who asks.
    pub origins: Arc<dyn Origins>,
    /// User id as which PID 1 asks: 0, but for tests.
    pub user: u32,
    /// The invocation id of a unit. `None`: unknown.
    pub starts: Starts,
}

impl CredentialServer {
    /// Answers until it is dropped.
    pub async fn run(self: Arc<Self>, listener: UnixListener) {
        accept(&listener, |stream| {
            let server = self.clone();
            async move { server.serve(stream).await }
        })
        .await;
    }

    async fn serve(&self, mut stream: UnixStream) {
        let reply = match self.consumer(&stream) {
            Ok(consumer) => {
                let start = (self.starts)(&consumer.unit);
                let reply = self.fetcher.serve(&consumer, start.as_deref()).await;
                let result = match &reply {
                    Reply::Value(_) => "given",
                    Reply::Absent => "absent",
                    Reply::Fail => "withheld: the unit fails",
                    Reply::Denied => "denied: the manifest does not give it",
                };
                let level = match &reply {
                    Reply::Value(_) => log::Level::Info,
                    _ => log::Level::Warn,
                };
                log::log!(
                    level,
                    UNIT = consumer.unit.as_str(),
                    SECRET_NAME = consumer.credential.as_str(),
                    RESULT = result;
                    "{consumer}: {result}"
                );
                reply
            }
            Err(reason) => {
                log::warn!("a credential was asked for and denied: {reason}");
                self.fetcher.denied();
                // Not even the word that fails a unit: it would be a gift of 1 MiB to anybody.
                return;
            }
        };
        let write = async {
            match reply {
                Reply::Value(value) => stream.write_all(value.expose()).await?,
                Reply::Absent => {}
                Reply::Fail | Reply::Denied => {
                    let block = vec![0; 64 * 1024];
                    for _ in 0..LARGEST / block.len() {
                        stream.write_all(&block).await?;
                    }
                    stream.write_all(&[0]).await?;
                }
            }
            stream.shutdown().await
        };
        // A peer that went away, or reads no more, has what it wants.
        let _ = tokio::time::timeout(WRITE, write).await;
    }

    /// Who asks for what; only PID 1's child within the unit itself may.
    fn consumer(&self, stream: &UnixStream) -> Result<Consumer, String> {
        let credentials = stream.peer_cred().map_err(|error| error.to_string())?;
        if credentials.uid() != self.user {
            return Err(format!("user {} is not PID 1's", credentials.uid()));
        }
        let address = stream.peer_addr().map_err(|error| error.to_string())?;
        let name = address.as_abstract_name().unwrap_or_default();
        let consumer = parse_name(name).ok_or("it is not asked for the way systemd does")?;
        match self.origins.unit(stream) {
            Some(unit) if unit == consumer.unit => Ok(consumer),
            Some(unit) => Err(format!("{consumer} was asked for from within {unit}")),
            None => Err(format!("{consumer} was asked for by nobody's process")),
        }
    }
}
