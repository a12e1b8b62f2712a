//! A small HTTP/1.1 client: one connection at a time to each host, kept alive; every wait has a
//! time-out, redirects are followed, nothing is retried here.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls;

use crate::error::Error;
use crate::proxy::Proxies;
use crate::url::Url;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection to one address, and for a TLS handshake.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// Without a byte of a body.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
        }
    }
}

/// What is common to all connections.
pub(crate) struct Client {
    pub(crate) timeouts: Timeouts,
    pub(crate) proxies: Proxies,
    tls: OnceLock<Result<tokio_rustls::TlsConnector, String>>,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Retrying may help.
    Transient(String),
    /// An answer that is not what was asked for.
    Status(u16),
    /// Retrying does not help.
    Fatal(Error),
}

impl Client {
    pub(crate) fn new(timeouts: Timeouts, proxies: Proxies) -> Self {
        Self {
            timeouts,
            proxies,
            tls: OnceLock::new(),
        }
    }

    fn tls(&self) -> Result<&tokio_rustls::TlsConnector, Failure> {
        let made = self.tls.get_or_init(|| {
            let mut roots = rustls::RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(format!(
                    "this host trusts no certificate authority (install ca-certificates) {}",
                    errors.join("; ")
                ));
            }
            connector(roots)
        });
        made.as_ref().map_err(|reason| {
            Failure::Fatal(Error::Setup {
                what: "TLS",
                reason: reason.clone(),
            })
        })
    }
}

/// TLS with ring, for HTTP/1.1, trusting `roots`.
fn connector(roots: rustls::RootCertStore) -> Result<tokio_rustls::TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

type Sender = SendRequest<Empty<Bytes>>;
type Key = (bool, String, u16);

/// The connections of one worker.
pub(crate) struct Connections {
    client: Arc<Client>,
    open: HashMap<Key, Sender>,
}

/// An answer whose head has come.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) url: Url,
    body: Incoming,
    key: Key,
    sender: Sender,
    stall: Duration,
}

impl Response {
    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout(self.stall, self.body.frame()).await.map_err(|_| {
                Failure::Transient(format!("no data for {} s", self.stall.as_secs_f32()))
            })?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(e)) => return Err(broken(&e)),
            }
        }
    }
}

impl Connections {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            open: HashMap::new(),
        }
    }

    /// Gives back the connection of an answer whose body has been read to its end.
    pub(crate) fn keep(&mut self, response: Response) {
        self.open.insert(response.key, response.sender);
    }

    /// GET, from byte `from` on; follows redirects. Only 200 and 206 are answers, and 416 where
    /// `from` is not 0.
    pub(crate) async fn get(&mut self, url: &Url, from: u64) -> Result<Response, Failure> {
        let mut url = url.clone();
        for _ in 0..5 {
            let response = self.get_once(&url, from).await?;
            match response.status.as_u16() {
                200 | 206 => return Ok(response),
                416 if from > 0 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let location = response
                        .headers
                        .get(header::LOCATION)
                        .and_then(|l| l.to_str().ok());
                    let Some(location) = location else {
                        return Err(Failure::Transient("a redirect to nowhere".to_owned()));
                    };
                    let next = url.redirect(location).map_err(Failure::Fatal)?;
                    if url.tls && !next.tls {
                        return Err(Failure::Fatal(Error::BadUrl {
                            url: url.to_string(),
                            reason: format!("redirects from https to {next}: refused"),
                        }));
                    }
                    url = next;
                }
                status @ (408 | 425 | 429 | 500..) => {
                    return Err(Failure::Transient(format!("the server answered {status}")));
                }
                status => return Err(Failure::Status(status)),
            }
        }
        Err(Failure::Transient("more than 5 redirects".to_owned()))
    }

    async fn get_once(&mut self, url: &Url, from: u64) -> Result<Response, Failure> {
        let proxy = self.client.proxies.of(url).map_err(Failure::Fatal)?;
        let forward = proxy.as_ref().filter(|_| !url.tls);
        let key = match forward {
            Some(proxy) => (false, proxy.host.clone(), proxy.port),
            None => (url.tls, url.host.clone(), url.port),
        };
        let mut kept = self.open.remove(&key);
        if let Some(sender) = &mut kept
            && !matches!(
                timeout(Duration::from_secs(1), sender.ready()).await,
                Ok(Ok(()))
            )
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(url, proxy.as_ref()).await?,
        };
        let target = match forward {
            Some(_) => url.to_string(),
            None => url.path.clone(),
        };
        let mut request = Request::get(target)
            .header(header::HOST, url.authority())
            .header(
                header::USER_AGENT,
                concat!("larder-imagegen/", env!("CARGO_PKG_VERSION")),
            );
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(authorization) = &url.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(authorization) = forward.and_then(|p| p.authorization.as_ref()) {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|e| {
            Failure::Fatal(Error::BadUrl {
                url: url.to_string(),
                reason: e.to_string(),
            })
        })?;
        let wait = self.client.timeouts.answer;
        let response = timeout(wait, sender.send_request(request))
            .await
            .map_err(|_| Failure::Transient(format!("no answer for {} s", wait.as_secs_f32())))?
            .map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        Ok(Response {
            status: head.status,
            headers: head.headers,
            url: url.clone(),
            body,
            key,
            sender,
            stall: self.client.timeouts.stall,
        })
    }

    async fn connect(&self, url: &Url, proxy: Option<&Url>) -> Result<Sender, Failure> {
        let stream = self.dial(proxy.unwrap_or(url)).await?;
        if !url.tls {
            return shake(stream).await;
        }
        let stream = match proxy {
            Some(proxy) => self.tunnel(stream, url, proxy).await?,
            None => stream,
        };
        let name =
            rustls::pki_types::ServerName::try_from(url.host_name().to_owned()).map_err(|e| {
                Failure::Fatal(Error::BadUrl {
                    url: url.to_string(),
                    reason: e.to_string(),
                })
            })?;
        let tls = self.client.tls()?;
        let stream = timeout(self.client.timeouts.connect, tls.connect(name, stream))
            .await
            .map_err(|_| Failure::Transient("no TLS handshake in time".to_owned()))?
            .map_err(|e| Failure::Transient(format!("TLS: {e}")))?;
        shake(stream).await
    }

    /// A TCP connection; every address of the host is tried.
    async fn dial(&self, url: &Url) -> Result<TcpStream, Failure> {
        let (host, wait) = (url.host_name(), self.client.timeouts.connect);
        let addresses = timeout(wait, tokio::net::lookup_host((host, url.port)))
            .await
            .map_err(|_| Failure::Transient(format!("{host}: no answer from DNS")))?
            .map_err(|e| Failure::Transient(format!("{host}: {e}")))?;
        let mut last = format!("{host}: no address");
        for address in addresses {
            match timeout(wait, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(e)) => last = format!("{host} ({address}): {e}"),
                Err(_) => {
                    last = format!(
                        "{host} ({address}): no connection in {} s",
                        wait.as_secs_f32()
                    )
                }
            }
        }
        Err(Failure::Transient(last))
    }

    /// Asks a proxy for a tunnel (CONNECT).
    async fn tunnel(
        &self,
        mut stream: TcpStream,
        url: &Url,
        proxy: &Url,
    ) -> Result<TcpStream, Failure> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let to = format!("{}:{}", url.host, url.port);
        let authorization = match &proxy.authorization {
            Some(value) => format!("Proxy-Authorization: {value}\r\n"),
            None => String::new(),
        };
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{authorization}\r\n");
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
                head.push(stream.read_u8().await?);
            }
            std::io::Result::Ok(head)
        };
        let head = timeout(self.client.timeouts.answer, exchange)
            .await
            .map_err(|_| Failure::Transient(format!("proxy {proxy}: no answer")))?
            .map_err(|e| Failure::Transient(format!("proxy {proxy}: {e}")))?;
        let head = String::from_utf8_lossy(&head);
        match head.split_whitespace().nth(1) {
            Some("200") => Ok(stream),
            _ => Err(Failure::Transient(format!(
                "proxy {proxy}: no tunnel to {to}: {}",
                head.lines().next().unwrap_or("").trim()
            ))),
        }
    }
}

async fn shake<S>(stream: S) -> Result<Sender, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    // Ends with the connection; its errors also reach the request that they break.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// hyper's error with what lies under it.
fn broken(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    Failure::Transient(text)
}

#[cfg(test)]
mod tests;
