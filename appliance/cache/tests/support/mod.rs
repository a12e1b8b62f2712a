//! The service on loopback, and clients that say what they like.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part, and a test may fail"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cache::{
    AuthSettings, Credentials, Listeners, Server, Settings, Timeouts, TokenHash, TransportSettings,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whatever hangs ends here.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const TOKEN: &str = "swordfish";

/// A service that runs until it is dropped or stopped.
pub struct House {
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    pub folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// The settings of the tests; `folder` is for everything.
pub fn settings(folder: &std::path::Path) -> Settings {
    Settings {
        storage: folder.join("cas"),
        durability: store::Durability::default(),
        state: Some(folder.into()),
        auth: AuthSettings {
            token: TokenHash::of_token(TOKEN.as_bytes()),
            ..AuthSettings::default()
        },
        access_log: None,
        acme: None,
        credentials: Credentials::default(),
        max_cas_bytes: 25 << 20,
        plain_networks: Vec::new(),
        signed_only: false,
        drain: Duration::from_secs(3),
        names: vec!["localhost".into()],
        version: "1.2.3".into(),
        timeouts: Timeouts::default(),
        transport: TransportSettings::default(),
    }
}

impl House {
    pub async fn build(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cas")).unwrap();
        let mut settings = settings(folder.path());
        change(&mut settings);
        let any = ["127.0.0.1:0".parse().unwrap()];
        let listeners = Listeners::bind(&any, &any, &any).unwrap();
        let address = |sockets: &[std::net::TcpListener]| sockets[0].local_addr().unwrap();
        let (https, http) = (address(&listeners.https), address(&listeners.http));
        let metrics = address(&listeners.metrics);
        let server = Server::new(settings, listeners).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            https,
            http,
            metrics,
            folder,
            stop: Some(stop),
            task,
        }
    }

    /// Tells it to stop.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has stopped.
    pub async fn stopped(&mut self) {
        tokio::time::timeout(PATIENCE, &mut self.task)
            .await
            .unwrap()
            .unwrap();
    }

    pub async fn plain(&self) -> Talk<TcpStream> {
        Talk::new(TcpStream::connect(self.http).await.unwrap())
    }

    /// A connection over TLS that speaks what ALPN says.
    pub async fn tls(&self, alpn: &str) -> Talk<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.https).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(client(alpn));
        Talk::new(connector.connect(name, stream).await.unwrap())
    }

    /// The text of all metrics.
    pub async fn metrics(&self) -> String {
        let stream = TcpStream::connect(self.metrics).await.unwrap();
        let mut talk = Talk::new(stream);
        talk.say("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        talk.rest().await
    }

    /// The value of a metric.
    pub async fn metric(&self, line: &str) -> u64 {
        let text = self.metrics().await;
        let found = text.lines().find_map(|other| other.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
    }
}

pub fn client(alpn: &str) -> Arc<ClientConfig> {
    Arc::new(cache::certificate::unchecked::client(&[alpn]).unwrap())
}

/// One side of a conversation in bytes.
pub struct Talk<S> {
    pub stream: S,
    buffer: Vec<u8>,
}

/// A response of HTTP/1.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        fields.find_map(|(other, value)| (other == name).then_some(value))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends text. The other side may have closed already.
    pub async fn say(&mut self, text: &str) {
        self.send(text.as_bytes()).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    /// Reads on. `false`: that was the end.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        let read = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("no answer");
        matches!(read, Ok(1..))
    }

    /// Takes exactly so many bytes. `None`: there are not so many.
    pub async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Takes a head of HTTP/1. `None`: the connection ended.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Some(String::from_utf8(head).unwrap().to_ascii_lowercase());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Takes a whole response with a declared length. `None`: the connection ended.
    pub async fn answer(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let mut answer = Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        answer.body = self.take(length).await?;
        Some(answer)
    }

    /// Everything until the other side closes.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }
}
