//! The little of an HTTP client that pushing needs: one connection that is used again, TLS by
//! rustls, a proxy, credentials from files, and an end to everything (time, size, redirects).

mod client;
mod connect;
mod settings;

use std::time::Duration;

pub use client::Client;
pub use settings::{ClientSettings, Credentials, Error, Value};

/// Headers of every push: to Loki, or to Prometheus by remote write 1.0.
pub fn headers(remote_write: bool) -> Vec<(&'static str, http::HeaderValue)> {
    let value = http::HeaderValue::from_static;
    let mut headers = vec![("content-type", value("application/x-protobuf"))];
    if remote_write {
        headers.push(("content-encoding", value("snappy")));
        headers.push(("x-prometheus-remote-write-version", value("0.1.0")));
    }
    headers
}

/// Where requests go.
pub trait Receiver {
    /// Sends one request and waits for the answer.
    fn push(&mut self, body: &[u8]) -> Answer;

    /// Sends one request of remote write 2.0; gives the answer, and how many samples the receiver says
    /// to have written. `None` instead of an answer: this one cannot send it.
    fn push_second(&mut self, body: &[u8]) -> Option<(Answer, Option<u64>)> {
        let _ = body;
        None
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer of HTTP.
    Response {
        /// The status.
        status: u16,
        /// `Retry-After` in seconds, if it was given so.
        retry_after: Option<Duration>,
        /// The beginning of the body.
        text: String,
    },
    /// There was none: what failed, in words.
    Failure(String),
}

impl Answer {
    /// How long the receiver asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Response { retry_after, .. } => *retry_after,
            Self::Failure(_) => None,
        }
    }

    /// The answer in words, fit for a log line.
    pub fn words(&self) -> String {
        match self {
            Self::Failure(text) => text.clone(),
            Self::Response { status, text, .. } => {
                let text: String = text
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .take(300)
                    .collect();
                format!("status {status} {text}").trim_end().to_owned()
            }
        }
    }
}
