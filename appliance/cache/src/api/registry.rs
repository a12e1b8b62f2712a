//! `/api/registry/swift/*`: the mirror of Swift packages, which this node does not have.

use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::answer::message;
use crate::body::Body;

const CONTENT_VERSION: HeaderName = HeaderName::from_static("content-version");

/// What a node without a registry answers, to anybody.
pub(crate) fn answer() -> Response<Body> {
    let text = "Registry is not available on this cache node.";
    let mut response = message(StatusCode::NOT_FOUND, text);
    let version = HeaderValue::from_static("1");
    response.headers_mut().insert(CONTENT_VERSION, version);
    response
}
