//! How instant-acme speaks to the authority: by the workspace's one HTTPS client, with its limits and
//! its rules for addresses.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use secrets::transport::{Https, Limits, Origin};

/// Sends requests and remembers when the authority wants to be left alone.
#[derive(Clone)]
pub(super) struct Http {
    https: Arc<Https>,
    wait: Arc<Mutex<Option<Duration>>>,
}

impl Http {
    /// # Errors
    ///
    /// The authorities of `ca_file` cannot be read.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let limits = Limits {
            body: 1024 * 1024,
            ..Limits::default()
        };
        let https = Https::new(ca_file, limits).map_err(|error| error.to_string())?;
        Ok(Self {
            https: Arc::new(https),
            wait: Arc::default(),
        })
    }

    /// `Retry-After` of the last refusal, once.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            let other = |error: String| Error::Other(error.into());
            let (parts, body) = request.into_parts();
            let origin = parts.uri.authority().map(|authority| {
                let scheme = parts.uri.scheme_str().unwrap_or("none");
                Origin::parse(&format!("{scheme}://{authority}"))
            });
            let origin = origin.ok_or_else(|| other("an address without a host".into()))?;
            let origin = origin.map_err(other)?;
            // Made from bytes: it cannot fail.
            let body = body
                .collect()
                .await
                .map_or_else(|never| match never {}, |body| body.to_bytes());
            let request = Request::from_parts(parts, body);
            let answer = this.https.public(&origin, request).await;
            let answer: Response<Bytes> = answer.map_err(|error| other(error.to_string()))?;
            if !answer.status().is_success() {
                let wait = answer.headers().get(http::header::RETRY_AFTER);
                let wait = wait.and_then(|value| value.to_str().ok()?.trim().parse().ok());
                let wait = wait.map(|seconds: u64| Duration::from_secs(seconds.min(7 * 86_400)));
                *this.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
            }
            let (parts, body) = answer.into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}
