//! A service on loopback with a store of its own, and a client that takes its certificate.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::control::{Line, Question};
use cache::{
    AuthSettings, Credentials, Listeners, Server, Settings, Timeouts, TokenHash, TransportSettings,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// The query that names the project of most tests.
pub(crate) const PROJECT: &str = "account_handle=acme&project_handle=app";
/// The token that is right.
pub(crate) const TOKEN: &str = "right-token";

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `{"message": …}`.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    /// A header's value, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The parameters that validation found wrong.
    pub(crate) fn wrong(&self) -> Vec<String> {
        assert_eq!(self.status, 422, "{self:?}");
        let json = self.json();
        let errors = json["errors"].as_array().unwrap();
        let pointer = |error: &serde_json::Value| {
            assert!(error["title"].is_string() && error["detail"].is_string());
            error["source"]["pointer"].as_str().unwrap().to_owned()
        };
        errors.iter().map(pointer).collect()
    }
}

/// A request in the making.
pub(crate) struct Call<'a> {
    daemon: &'a Daemon,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
    /// Without a declared length.
    chunked: bool,
    plain: bool,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub(crate) fn no_token(mut self) -> Self {
        self.headers.remove("authorization");
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, value: &serde_json::Value) -> Self {
        self.header("content-type", "application/json")
            .body(value.to_string())
    }

    pub(crate) fn bytes(self, bytes: impl Into<Bytes>) -> Self {
        self.header("content-type", "application/octet-stream")
            .body(bytes)
    }

    pub(crate) fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// On port 80 instead of 443.
    pub(crate) fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    fn request(&self) -> Request<http_body_util::combinators::BoxBody<Bytes, std::io::Error>> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.target);
        *request.headers_mut().unwrap() = self.headers.clone();
        let body = if self.chunked {
            let half = self.body.len() / 2;
            let pieces = [self.body.slice(..half), self.body.slice(half..)];
            let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
            StreamBody::new(Iter(frames)).boxed()
        } else {
            Full::new(self.body.clone())
                .map_err(|never| match never {})
                .boxed()
        };
        request.body(body).unwrap()
    }

    /// Sends it over HTTP/1.1, on a connection of its own.
    pub(crate) async fn send(mut self) -> Answer {
        self.headers.insert("host", "localhost".parse().unwrap());
        let request = self.request();
        let response = if self.plain {
            let stream = TcpStream::connect(self.daemon.http).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let stream = self.daemon.connect("http/1.1").await;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        answer(response).await
    }

    /// Sends it over HTTP/2.
    pub(crate) async fn send_h2(mut self) -> Answer {
        self.target = format!("https://localhost{}", self.target);
        let stream = self.daemon.connect("h2").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        answer(sender.send_request(self.request()).await.unwrap()).await
    }
}

async fn answer(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// An iterator as a stream that never waits.
struct Iter<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Iter<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// A service that runs until it is dropped.
pub(crate) struct Daemon {
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
    folder: Option<tempfile::TempDir>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), change).await
    }

    async fn start_on(folder: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let cas = folder.path().join("cas");
        std::fs::create_dir_all(&cas).unwrap();
        let mut settings = Settings {
            storage: cas,
            state: None,
            auth: AuthSettings {
                token: TokenHash::of_token(TOKEN.as_bytes()),
                ..AuthSettings::default()
            },
            durability: Default::default(),
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
        };
        change(&mut settings);
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (https, http, metrics) = (socket(), socket(), socket());
        let control = folder.path().join("control.sock");
        // The one of the last start.
        let _ = std::fs::remove_file(&control);
        let control = std::os::unix::net::UnixListener::bind(control).unwrap();
        let address = |socket: &TcpListener| socket.local_addr().unwrap();
        let (a, b, c) = (address(&https), address(&http), address(&metrics));
        let listeners = Listeners {
            https: vec![https],
            http: vec![http],
            metrics: vec![metrics],
            control: Some(control),
        };
        let server = Server::new(settings, listeners).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        let daemon = Self {
            https: a,
            http: b,
            metrics: c,
            folder: Some(folder),
            stop: Some(stop),
            running: Some(running),
        };
        // The index of even an empty store is read beside the service. One that cannot be used is
        // never ready.
        loop {
            let answer = daemon.get("/ready").send().await;
            if answer.status == 200 || !String::from_utf8_lossy(&answer.body).contains("index") {
                return daemon;
            }
        }
    }

    /// Stops it and starts it again on the same store.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop.take().unwrap().send(()).unwrap();
        self.running.take().unwrap().await.unwrap();
        Self::start_on(self.folder.take().unwrap(), |_| {}).await
    }

    async fn connect(&self, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let config = cache::certificate::unchecked::client(&[protocol]).unwrap();
        let stream = TcpStream::connect(self.https).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    /// A request with the right token.
    pub(crate) fn call(&self, method: &str, target: impl Into<String>) -> Call<'_> {
        let call = Call {
            daemon: self,
            method: method.parse().unwrap(),
            target: target.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            chunked: false,
            plain: false,
        };
        call.token(TOKEN)
    }

    pub(crate) fn get(&self, target: impl Into<String>) -> Call<'_> {
        self.call("GET", target)
    }

    pub(crate) fn put(&self, target: impl Into<String>, bytes: impl Into<Bytes>) -> Call<'_> {
        self.call("PUT", target).bytes(bytes)
    }

    pub(crate) fn post(&self, target: impl Into<String>, bytes: impl Into<Bytes>) -> Call<'_> {
        self.call("POST", target).bytes(bytes)
    }

    /// Asks the control socket; all lines of the answer.
    pub(crate) async fn ask(&self, question: &Question) -> Vec<Line> {
        let path = self.folder.as_ref().unwrap().path().join("control.sock");
        let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
        let text = serde_json::to_string(question).unwrap() + "\n";
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A metric's value.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let stream = TcpStream::connect(self.metrics).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get("/metrics")
            .header("host", "localhost")
            .body(Full::<Bytes>::default());
        let answer = answer(sender.send_request(request.unwrap()).await.unwrap()).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let found = text.lines().find_map(|other| other.strip_prefix(line));
        let value = found.unwrap_or_else(|| panic!("{line} is not in {text}"));
        value.trim().parse().unwrap()
    }
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    let digest = Sha256::digest(bytes.as_ref());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not repeat.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let word = |at: u64| {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23)
            .to_le_bytes()
    };
    (0..length.div_ceil(8) as u64)
        .flat_map(word)
        .take(length)
        .collect()
}
