//! Responses that several handlers give.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::jitter;
use crate::transport::budget::Overloaded;

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::bytes(""));
    *response.status_mut() = status;
    response
}

fn typed(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = empty(status);
    *response.body_mut() = Body::bytes(text);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Plain text.
pub(crate) fn text(status: StatusCode, text: String) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text)
}

/// `{"message": …}`: how errors look.
pub(crate) fn message(status: StatusCode, message: &str) -> Response<Body> {
    let text = json!({ "message": message }).to_string();
    typed(status, "application/json", text)
}

/// JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    typed(status, "application/json", value.to_string())
}

/// JSON that is text already.
pub(crate) fn json_text(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    typed(status, "application/json", text)
}

/// 429 on the routes of Tuist, with a time to wait that differs from client to client.
pub(crate) fn busy(text: &str) -> Response<Body> {
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, text);
    retry_later(&mut response);
    response
}

/// Adds when to try again: 1 to 4 seconds, so that not all come back at once.
pub(crate) fn retry_later(response: &mut Response<Body>) {
    let wait = 1 + jitter::up_to(Duration::from_secs(4)).as_secs();
    response.headers_mut().insert(RETRY_AFTER, wait.into());
}

/// What there is not.
pub(crate) fn not_found() -> Response<Body> {
    // The answer that is given most: not made anew each time.
    let text = Bytes::from_static(br#"{"message":"Not found"}"#);
    typed(StatusCode::NOT_FOUND, "application/json", text)
}

/// 422 with the shape of OpenAPI validation; each error is a parameter and what is wrong with it.
pub(crate) fn invalid(errors: &[(&str, &str)]) -> Response<Body> {
    let errors: Vec<_> = errors
        .iter()
        .map(|(parameter, detail)| {
            json!({
                "title": "Invalid value",
                "source": { "pointer": format!("/{parameter}") },
                "detail": detail,
            })
        })
        .collect();
    let text = json!({ "errors": errors }).to_string();
    typed(StatusCode::UNPROCESSABLE_ENTITY, "application/json", text)
}

/// 429: there is no memory for the body now, and there will be soon.
pub(crate) fn overloaded(overloaded: Overloaded) -> Response<Body> {
    let text = "The cache is busy. Please try again later.";
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, text);
    let seconds = overloaded.retry_after.as_secs().max(1);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}
