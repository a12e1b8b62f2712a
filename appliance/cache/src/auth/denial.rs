//! Why a request may not, and how that is answered where the client's protocol says nothing else.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::answer::message;
use crate::body::Body;

/// Says why a request is throttled (clients do not ask another server then).
pub(crate) const THROTTLE_REASON: HeaderName = HeaderName::from_static("x-tuist-throttle-reason");

/// Why a request may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// It shows no credential: 401.
    Missing,
    /// Its credential is none that is known, or is not valid (any more): 401.
    Unauthorized,
    /// Its credential is good, and not for this project, or not for writing: 403.
    Forbidden,
    /// The account has not paid: 402, with what to say about it.
    Payment(&'static str),
    /// Its source tried too many tokens that failed, or too many questions are on their way: 429.
    Throttled {
        /// When to try again.
        retry_after: Duration,
    },
    /// Who would know cannot be asked, and nothing that was known is fresh enough: 503.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

impl Denial {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Payment(_) => StatusCode::PAYMENT_REQUIRED,
            Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What a person reads.
    pub(crate) fn text(&self) -> &'static str {
        match self {
            Self::Missing => "Missing Authorization header",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "You don't have access to this project",
            Self::Payment(text) => text,
            Self::Throttled { .. } => "Too many failed authorizations. Please try again later.",
            Self::Unavailable { .. } => {
                "Authorization is temporarily unavailable. Please try again later."
            }
        }
    }

    /// When to try again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } | Self::Unavailable { retry_after } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }

    /// The headers that belong to every answer to it, whatever its status and body.
    pub(crate) fn headers(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, wait.as_secs().max(1).into());
        }
        if matches!(self, Self::Throttled { .. }) {
            headers.insert(THROTTLE_REASON, HeaderValue::from_static("authorization"));
        }
    }

    /// The answer on the routes of Tuist.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = message(self.status(), self.text());
        self.headers(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_client_learns_why_and_how_long() {
        let retry_after = Duration::from_secs(7);
        let response = Denial::Throttled { retry_after }.response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        assert_eq!(response.headers()[THROTTLE_REASON], "authorization");
        let response = Denial::Unavailable {
            retry_after: Duration::ZERO,
        }
        .response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(!response.headers().contains_key(THROTTLE_REASON));
        assert!(
            !Denial::Forbidden
                .response()
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }
}
