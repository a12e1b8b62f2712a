//! The client.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

use super::connect::{connect, host_and_port};
use super::settings::ClientSettings;
use super::{Answer, Receiver};
use crate::metrics::second;

/// How the client names itself.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("larder/", env!("CARGO_PKG_VERSION")));
/// How many samples a receiver of remote write 2.0 has written.
const WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
/// Most of an answer to a push that is read, in bytes.
const ANSWER: usize = 64 * 1024;

/// A client for one address, that blocks the thread while it is used.
#[derive(Debug)]
pub struct Client {
    settings: ClientSettings,
    runtime: Runtime,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client; the connection is made by the first request.
    ///
    /// # Errors
    ///
    /// The kernel refuses what a client needs.
    pub fn new(settings: ClientSettings) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::from_secs(1))
            .build()?;
        Ok(Self {
            settings,
            runtime,
            connection: None,
        })
    }

    /// Sends a POST with the body.
    pub fn post(&mut self, body: &[u8]) -> Answer {
        self.post_with(body, &[]).0
    }

    /// The same with some headers instead of those of the settings; gives the header
    /// `X-Prometheus-Remote-Write-Samples-Written`, too.
    fn post_with(&mut self, body: &[u8], headers: &Headers) -> (Answer, Option<u64>) {
        let body = Bytes::copy_from_slice(body);
        match self.exchange(Method::POST, body, headers, ANSWER, true) {
            Ok(received) => {
                let answer = Answer::Response {
                    status: received.status,
                    retry_after: received.retry_after,
                    text: String::from_utf8_lossy(&received.body).into_owned(),
                };
                (answer, received.written)
            }
            Err(error) => (Answer::Failure(error), None),
        }
    }

    /// Sends a GET, and gives status and body, which may not be larger than `limit` bytes.
    ///
    /// # Errors
    ///
    /// There was no answer, or a larger one.
    pub fn get(&mut self, limit: usize) -> Result<(u16, Vec<u8>), String> {
        self.exchange(Method::GET, Bytes::new(), &[], limit, false)
            .map(|received| (received.status, received.body))
    }

    /// With `lenient`, what is beyond the limit of the answer is left out.
    fn exchange(
        &mut self,
        method: Method,
        body: Bytes,
        headers: &Headers,
        limit: usize,
        lenient: bool,
    ) -> Result<Received, String> {
        let Self {
            settings,
            runtime,
            connection,
        } = self;
        let timeout = settings.timeout;
        let (host, port) = host_and_port(&settings.url);
        let result = runtime.block_on(async {
            let exchange = async {
                let request = request(settings, method, body, headers)?;
                let response = send(settings, connection, request).await?;
                read(response, limit, lenient).await
            };
            let late = || {
                format!(
                    "no answer from {host}:{port} within {} s",
                    timeout.as_secs()
                )
            };
            tokio::time::timeout(timeout, exchange)
                .await
                .unwrap_or_else(|_| Err(late()))
        });
        // What is left of a broken exchange would be taken for the answer to the next one.
        if !result.as_ref().is_ok_and(|received| received.whole) {
            self.connection = None;
        }
        result
    }
}

/// Headers by lower-case name.
type Headers = [(&'static str, &'static str)];

/// An answer.
struct Received {
    status: u16,
    retry_after: Option<Duration>,
    written: Option<u64>,
    body: Vec<u8>,
    /// The connection can be used again.
    whole: bool,
}

impl Receiver for Client {
    fn push(&mut self, body: &[u8]) -> Answer {
        self.post(body)
    }

    fn push_second(&mut self, body: &[u8]) -> Option<(Answer, Option<u64>)> {
        Some(self.post_with(body, &second::HEADERS))
    }
}

async fn send(
    settings: &ClientSettings,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    if let Some(used) = connection
        && used.ready().await.is_ok()
    {
        match used.try_send_request(request.clone()).await {
            Ok(response) => return Ok(response),
            // The server closed it in the meantime; all that is sent here may be sent twice.
            Err(_) => *connection = None,
        }
    }
    let timeout = settings.connect_timeout;
    let (host, port) = host_and_port(&settings.url);
    let stream = tokio::time::timeout(timeout, connect(settings))
        .await
        .map_err(|_| {
            format!(
                "no connection to {host}:{port} within {} s",
                timeout.as_secs()
            )
        })??;
    let failed = |error: hyper::Error| {
        use std::error::Error;
        let cause = error
            .source()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        format!("no answer from {host}:{port}: {error}{cause}")
    };
    let (mut sender, driver) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the connection; its errors are those of the request.
    tokio::spawn(driver);
    let response = sender.send_request(request).await.map_err(failed)?;
    *connection = Some(sender);
    Ok(response)
}

fn request(
    settings: &ClientSettings,
    method: Method,
    body: Bytes,
    headers: &Headers,
) -> Result<Request<Full<Bytes>>, String> {
    let url = &settings.url;
    // A proxy that makes no tunnel is told the whole address (RFC 9112 section 3.2.2).
    let target = if settings.proxy.is_some() && settings.tls.is_none() {
        url.to_string()
    } else {
        url.path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned()
    };
    let host = url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, host)
        .header(USER_AGENT, AGENT);
    for (name, value) in &settings.headers {
        if headers.iter().all(|(other, _)| other != name) {
            request = request.header(HeaderName::from_static(name), value);
        }
    }
    for (name, value) in headers {
        request = request.header(HeaderName::from_static(name), *value);
    }
    if let Some(value) = settings
        .credentials
        .header()
        .map_err(|error| error.to_string())?
    {
        request = request.header(AUTHORIZATION, value);
    }
    request
        .body(Full::new(body))
        .map_err(|error| error.to_string())
}

async fn read(
    response: Response<Incoming>,
    limit: usize,
    lenient: bool,
) -> Result<Received, String> {
    let number = |name: &HeaderName| -> Option<u64> {
        let value = response.headers().get(name)?;
        value.to_str().ok()?.trim().parse().ok()
    };
    let mut received = Received {
        status: response.status().as_u16(),
        retry_after: number(&RETRY_AFTER).map(Duration::from_secs),
        written: number(&WRITTEN),
        body: Vec::new(),
        whole: false,
    };
    let body = &mut received.body;
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            // The status is what counts; the words of an error may be cut off.
            Err(_) if lenient => return Ok(received),
            Err(error) => return Err(format!("the answer broke off: {error}")),
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if body.len() + data.len() > limit {
            if !lenient {
                return Err(format!("the answer is larger than {limit} bytes"));
            }
            body.extend_from_slice(&data[..limit - body.len()]);
            return Ok(received);
        }
        body.extend_from_slice(data);
    }
    received.whole = true;
    Ok(received)
}
