//! HTTP/1.1 over TLS, one connection a request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::{Zeroize, Zeroizing};

use super::{Origin, Pending, Request, Response, Transport, address};
use crate::error::{Class, FetchError};

/// How long and how large.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For name resolution, connection and TLS handshake.
    pub connect: Duration,
    /// For everything.
    pub total: Duration,
    /// Largest body, in bytes.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            total: Duration::from_secs(30),
            body: 8 * 1024 * 1024,
        }
    }
}

/// Sends requests over the network.
pub struct Https {
    connector: TlsConnector,
    limits: Limits,
}

impl Https {
    /// Trusts the certificates of a PEM file, or without one those of the system.
    pub fn new(ca: Option<&Path>, limits: Limits) -> Result<Self, FetchError> {
        let local = |what: String| FetchError::new(Class::Local, what);
        let mut roots = rustls::RootCertStore::empty();
        match ca {
            Some(path) => {
                let fail = |reason: &dyn std::fmt::Display| {
                    local(format!("cannot read certificates: {reason}")).at(path.display())
                };
                for certificate in
                    CertificateDer::pem_file_iter(path).map_err(|error| fail(&error))?
                {
                    let certificate = certificate.map_err(|error| fail(&error))?;
                    roots.add(certificate).map_err(|error| fail(&error))?;
                }
                if roots.is_empty() {
                    return Err(fail(&"there are none in it"));
                }
            }
            None => {
                // What cannot be read of the system's store is left out; none at all is an error.
                for certificate in rustls_native_certs::load_native_certs().certs {
                    let _ = roots.add(certificate);
                }
                if roots.is_empty() {
                    return Err(local(
                        "this system trusts no certificates: is ca-certificates installed?".into(),
                    ));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| local(format!("cannot set up TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            limits,
        })
    }

    async fn open(&self, origin: &Origin) -> Result<Box<dyn Stream>, FetchError> {
        let stream = connect(origin).await?;
        // Without it the request only waits a little.
        let _ = stream.set_nodelay(true);
        if !origin.tls() {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(origin.host().to_owned())
            .map_err(|_| FetchError::new(Class::Tls, "its name fits no certificate"))?;
        let stream = self.connector.connect(name, stream).await;
        stream
            .map(|stream| Box::new(stream) as Box<dyn Stream>)
            .map_err(|error| tls_error(&error))
    }

    async fn exchange<'a, T>(
        &self,
        origin: &Origin,
        request: http::Request<Full<Bytes>>,
        read: impl FnOnce(hyper::Response<Incoming>) -> Pending<'a, Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let stream = within(self.limits.connect, "connecting", self.open(origin)).await??;
        let unavailable = |error: hyper::Error| {
            let what = if error.is_parse() {
                "the answer is no HTTP"
            } else {
                "the connection broke before the answer"
            };
            let class = if error.is_parse() {
                Class::Protocol
            } else {
                Class::Unavailable
            };
            FetchError::new(class, what)
        };
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unavailable)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(unavailable)?;
            read(response).await
        };
        // The connection makes progress only while it is polled; it ends with the answer.
        let mut answer = std::pin::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }

    /// Sends a request of which nothing is secret and gives the whole answer with its headers,
    /// whatever its status; the same limits hold, and no redirect is followed. The URI of the
    /// request is taken as path and query at `origin`.
    ///
    /// # Errors
    ///
    /// There was no answer in time, or a larger one. They name the host.
    pub async fn public(
        &self,
        origin: &Origin,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, FetchError> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let invalid = || FetchError::new(Class::Invalid, "the address makes no valid request");
        parts.uri = path.parse().map_err(|_| invalid())?;
        let host = http::HeaderValue::from_str(&origin.authority()).map_err(|_| invalid())?;
        parts.headers.insert(http::header::HOST, host);
        let limit = self.limits.body;
        let read = |response: hyper::Response<Incoming>| -> Pending<'static, _> {
            Box::pin(async move {
                let (parts, body) = response.into_parts();
                let body = http_body_util::Limited::new(body, limit).collect().await;
                let body = body.map_err(|_| {
                    let what = format!("the answer broke off, or is larger than {limit} bytes");
                    FetchError::new(Class::Unavailable, what)
                })?;
                Ok(http::Response::from_parts(parts, body.to_bytes()))
            })
        };
        let request = http::Request::from_parts(parts, Full::new(body));
        let work = self.exchange(origin, request, read);
        let answer = within(self.limits.total, "the answer", work).await;
        answer
            .and_then(|answer| answer)
            .map_err(|error| error.at(origin))
    }

    async fn read(&self, response: hyper::Response<Incoming>) -> Result<Response, FetchError> {
        let status = response.status().as_u16();
        if (300..400).contains(&status) {
            let what = format!("it answers {status}, a redirect, and secrets follow none");
            return Err(FetchError::new(Class::Protocol, what));
        }
        let retry_after = response
            .headers()
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds.min(86400)));
        let too_large = || {
            let what = format!("the answer is larger than {} bytes", self.limits.body);
            FetchError::new(Class::TooLarge, what)
        };
        let declared = response
            .headers()
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > self.limits.body as u64) {
            return Err(too_large());
        }
        // Made large enough at once: a vector that grows leaves copies of the value behind.
        let mut body = Zeroizing::new(Vec::with_capacity(match declared {
            Some(length) => length as usize,
            None => 64 * 1024,
        }));
        let mut incoming = response.into_body();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| {
                FetchError::new(Class::Unavailable, "the connection broke within the answer")
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if body.len() + data.len() > self.limits.body {
                return Err(too_large());
            }
            append(&mut body, &data);
        }
        Ok(Response {
            status,
            retry_after,
            body,
        })
    }
}

/// Appends without leaving an old copy in freed memory.
fn append(body: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if body.capacity() - body.len() < data.len() {
        let mut larger = Vec::with_capacity((body.len() + data.len()) * 2);
        larger.extend_from_slice(body);
        body.zeroize();
        **body = larger;
    }
    body.extend_from_slice(data);
}

fn build(origin: &Origin, mut request: Request) -> Result<http::Request<Full<Bytes>>, FetchError> {
    let mut builder = http::Request::builder()
        .method(request.method)
        .uri(&request.path)
        .header(http::header::HOST, origin.authority())
        .header(http::header::ACCEPT, "application/json")
        .header(
            http::header::USER_AGENT,
            concat!("Larder/", env!("CARGO_PKG_VERSION")),
        );
    if !request.body.is_empty() {
        builder = builder.header(http::header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in &request.headers {
        // The reason could quote the value.
        let mut value = http::HeaderValue::from_str(value).map_err(|_| {
            FetchError::new(
                Class::Unauthorized,
                format!("the value for the header {name} has characters that no header has"),
            )
        })?;
        value.set_sensitive(true);
        builder = builder.header(*name, value);
    }
    let body = Bytes::from(std::mem::take(&mut *request.body));
    builder.body(Full::new(body)).map_err(|_| {
        FetchError::new(
            Class::Invalid,
            "the reference does not make a valid request",
        )
    })
}

/// Connects to the first address of the host that takes it. A name must not lead where only the
/// machine itself or its hypervisor answers: such addresses have to be named as what they are.
async fn connect(origin: &Origin) -> Result<TcpStream, FetchError> {
    let failed = |error: std::io::Error| {
        FetchError::new(Class::Unavailable, format!("cannot connect: {error}"))
    };
    let found = tokio::net::lookup_host((origin.host(), origin.port())).await;
    let (mut last, mut refused) = (None, None);
    for address in found.map_err(failed)? {
        if !origin.is_address()
            && let Some(why) = address::reserved(address.ip())
        {
            refused = Some((address.ip(), why));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match (last, refused) {
        (Some(error), _) => Err(failed(error)),
        (None, Some((address, why))) => {
            let what = format!("its name leads to {address}, {why}");
            Err(FetchError::new(Class::Unavailable, what))
        }
        (None, None) => {
            let what = "cannot connect: its name has no address";
            Err(FetchError::new(Class::Unavailable, what))
        }
    }
}

/// What TLS says; its words hold names and reasons, no contents.
fn tls_error(error: &std::io::Error) -> FetchError {
    let tls = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(error) => FetchError::new(Class::Tls, format!("TLS: {error}")),
        None => FetchError::new(
            Class::Unavailable,
            "the connection broke in the TLS handshake",
        ),
    }
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    work: impl Future<Output = T>,
) -> Result<T, FetchError> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let what = format!("{doing} took longer than {} s", limit.as_secs_f32());
        FetchError::new(Class::Unavailable, what)
    })
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Transport for Https {
    fn send<'a>(
        &'a self,
        origin: &'a Origin,
        request: Request,
    ) -> Pending<'a, Result<Response, FetchError>> {
        Box::pin(async move {
            let work = async {
                let request = build(origin, request)?;
                let read = |response| -> Pending<'_, _> { Box::pin(self.read(response)) };
                self.exchange(origin, request, read).await
            };
            let answer = within(self.limits.total, "the answer", work).await;
            answer
                .and_then(|answer| answer)
                .map_err(|error| error.at(origin))
        })
    }
}
