//! One way for all providers to send a request and get an answer: bounded in time and size, without
//! redirects, and replaceable in tests.

mod address;
mod after_clock;
mod https;
mod origin;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::FetchError;

pub use after_clock::{AfterClock, Synchronised};
pub use https::{Https, Limits};
pub use origin::Origin;

/// What asynchronous methods of traits return.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request.
#[derive(Debug)]
pub struct Request {
    /// GET, POST or PUT.
    pub method: http::Method,
    /// Path and query.
    pub path: String,
    /// Headers besides host, length and type of the body. Values may be secret.
    pub headers: Vec<(&'static str, Zeroizing<String>)>,
    /// JSON, if not empty.
    pub body: Zeroizing<Vec<u8>>,
}

impl Request {
    /// A GET of a path.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: http::Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: Zeroizing::default(),
        }
    }

    /// A request with a body.
    pub fn with_body(method: http::Method, path: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Zeroizing::new(body),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, Zeroizing::new(value.into())));
        self
    }
}

/// An answer, whatever its status.
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// `Retry-After`, if it is a number of seconds (at most a day).
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

/// Sends requests.
pub trait Transport: Send + Sync {
    /// Sends one and waits for the whole answer. Errors name the host.
    fn send<'a>(
        &'a self,
        origin: &'a Origin,
        request: Request,
    ) -> Pending<'a, Result<Response, FetchError>>;
}

/// Appends a part of a path, with everything escaped that is not unreserved (RFC 3986, 2.3).
pub fn escape(part: &str, into: &mut String) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            into.push(byte.into());
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}
