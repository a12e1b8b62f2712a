//! A loopback server that all doubles share: HTTP/1.1, with TLS or without, and its misbehaviour.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug)]
pub struct Received {
    /// Such as `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// The body; JSON unless said otherwise.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer of JSON.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            body: body.to_string().into_bytes(),
        }
    }
}

/// How the server misbehaves.
#[derive(Clone, Debug, Default)]
pub enum Toxic {
    /// It does not.
    #[default]
    None,
    /// It closes connections without a word.
    Drop,
    /// It takes the request and never answers.
    Stall,
    /// It answers every request with this status, and a `Retry-After` if there is one.
    Status(u16, Option<u64>),
    /// It breaks off in the middle of the body.
    Cut,
    /// It says that the body has this many bytes, and sends them.
    Oversize(usize),
    /// It sends this many bytes in chunks, without saying how many.
    Endless(usize),
    /// It redirects to another place.
    Redirect(String),
    /// It answers this in place of HTTP.
    Garbage(Vec<u8>),
    /// It answers 200 with this body.
    Body(Vec<u8>),
}

/// Where guests of QEMU reach a server of the host, by a forward of their network.
pub const FOR_GUESTS: &str = "10.0.3.100";

/// Which certificate the server shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Certificate {
    /// None: it speaks plain HTTP.
    Plain,
    /// One for localhost, 127.0.0.1 and [`FOR_GUESTS`] by the authority of [`Server::authority`].
    Good,
    /// By that authority, for another name.
    WrongName,
    /// By another authority.
    Unknown,
}

/// A server that answers until it is dropped.
pub struct Server {
    address: SocketAddr,
    plain: bool,
    authority: String,
    toxic: Arc<Mutex<Toxic>>,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Begins to answer on a free port of 127.0.0.1. Must be called within a tokio runtime.
    ///
    /// # Panics
    /// If the machine gives no port or no certificate can be made.
    pub fn start(
        certificate: Certificate,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("an address");
        let listener = TcpListener::from_std(listener).expect("within a runtime");
        let (authority, acceptor) = tls(certificate);
        let toxic = Arc::new(Mutex::new(Toxic::None));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = {
            let requests = requests.clone();
            Arc::new(move |received| {
                let line = format!("{} {}", received.method, received.path);
                lock(&requests).push(line);
                handler(received)
            })
        };
        let task = tokio::spawn({
            let (toxic, requests) = (toxic.clone(), requests.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, handler) = (acceptor.clone(), handler.clone());
                    let (toxic, requests) = (lock(&toxic).clone(), requests.clone());
                    tokio::spawn(async move {
                        // What becomes of one connection is the client's concern.
                        let _ = serve(stream, acceptor, handler, toxic, requests).await;
                    });
                }
            }
        });
        Self {
            address,
            plain: certificate == Certificate::Plain,
            authority,
            toxic,
            requests,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://localhost:PORT`, or `http://127.0.0.1:PORT` without a certificate.
    pub fn url(&self) -> String {
        match self.plain {
            true => format!("http://{}", self.address),
            false => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// Certificate (PEM) of the authority that clients are to trust.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Misbehaves from the next connection on.
    pub fn poison(&self, toxic: Toxic) {
        *lock(&self.toxic) = toxic;
    }

    /// Method and path of all requests so far, oldest first, and forgets them.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.requests))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Handler = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls(certificate: Certificate) -> (String, Option<TlsAcceptor>) {
    let authority = || {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        (certificate.pem(), rcgen::Issuer::new(parameters, key))
    };
    let (trusted, issuer) = authority();
    if certificate == Certificate::Plain {
        return (trusted, None);
    }
    let issuer = match certificate {
        Certificate::Unknown => authority().1,
        _ => issuer,
    };
    let names: &[&str] = match certificate {
        Certificate::WrongName => &["elsewhere.example"],
        _ => &["localhost", "127.0.0.1", FOR_GUESTS],
    };
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(names)
        .and_then(|parameters| parameters.signed_by(&key, &issuer))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .expect("a key that fits");
    (trusted, Some(TlsAcceptor::from(Arc::new(config))))
}

async fn serve(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    handler: Handler,
    toxic: Toxic,
    requests: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    if matches!(toxic, Toxic::Drop) {
        return Ok(());
    }
    match acceptor {
        Some(acceptor) => talk(acceptor.accept(stream).await?, handler, toxic, requests).await,
        None => talk(stream, handler, toxic, requests).await,
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Handler,
    toxic: Toxic,
    requests: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} Toxic\r\n{more}\r\n");
    let reply: Vec<u8> = match toxic {
        Toxic::None | Toxic::Drop => {
            let service =
                hyper::service::service_fn(move |request| answer(request, handler.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            return connection.await.map_err(std::io::Error::other);
        }
        Toxic::Stall => Vec::new(),
        Toxic::Status(status, wait) => {
            let wait = wait.map_or(String::new(), |wait| format!("retry-after: {wait}\r\n"));
            head(status, &format!("{wait}content-length: 0\r\n")).into()
        }
        Toxic::Cut => {
            let mut reply = head(200, "content-length: 1000\r\n");
            reply.push_str("{\"half\":");
            reply.into()
        }
        Toxic::Oversize(length) => {
            let mut reply = head(200, &format!("content-length: {length}\r\n")).into_bytes();
            reply.resize(reply.len() + length, b' ');
            reply
        }
        Toxic::Endless(length) => {
            let mut reply = head(200, "transfer-encoding: chunked\r\n").into_bytes();
            for _ in 0..length.div_ceil(4096) {
                reply.extend_from_slice(b"1000\r\n");
                reply.resize(reply.len() + 4096, b' ');
                reply.extend_from_slice(b"\r\n");
            }
            reply.extend_from_slice(b"0\r\n\r\n");
            reply
        }
        Toxic::Redirect(to) => {
            head(302, &format!("location: {to}\r\ncontent-length: 0\r\n")).into()
        }
        Toxic::Garbage(bytes) => bytes,
        Toxic::Body(body) => {
            let head = head(200, &format!("content-length: {}\r\n", body.len()));
            [head.into_bytes(), body].concat()
        }
    };
    // A request has to come first, or the client sees the answer to nothing.
    let mut request = vec![0; 16 * 1024];
    let length = stream.read(&mut request).await?;
    let text = String::from_utf8_lossy(&request[..length]);
    let line = text
        .rsplit_once(" HTTP/1.1\r\n")
        .map_or(&*text, |(line, _)| line);
    lock(&requests).push(line.lines().next().unwrap_or_default().into());
    if reply.is_empty() {
        // Until the client gives up.
        while stream.read(&mut request).await? > 0 {}
        return Ok(());
    }
    stream.write_all(&reply).await?;
    stream.shutdown().await
}

async fn answer(
    request: http::Request<hyper::body::Incoming>,
    handler: Handler,
) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let received = Received {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.collect().await?.to_bytes().to_vec(),
    };
    let answer = handler(&received);
    let mut response = http::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = http::StatusCode::from_u16(answer.status)
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
