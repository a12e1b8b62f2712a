//! Gradle's own `HttpBuildCache`: `/{32 digits}`.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201, 200 if the entry is there |
//! | nothing there | 404 | |
//! | no credential | 401 | 401 |
//! | none for this | 403 | 403 |
//! | overload, authorization does not answer | 404 | 413 |
//! | disk | 404 | 413 |
//!
//! One bad answer switches its cache off for the rest of the build, so that only what a person must
//! put right is said. 413 is what newer versions take without doing so.

use http::Response;
use http::header::{ACCEPT, HeaderMap};
use store::{Existing, Kind};

use super::statuses::{PLAIN, Statuses};
use super::{Asked, free, is_hex, not_allowed};
use crate::api::key;
use crate::body::{Body, Received};

pub(super) const STATUSES: Statuses = Statuses {
    throttled: (404, 413),
    unavailable: (404, 413),
    busy: (404, 413),
    disk: 413,
    ..PLAIN
};

/// Type of what it stores.
const ENTRY: &str = "application/vnd.gradle.build-cache-artifact";

pub(super) fn is(path: &str, headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    !path.contains('/')
        && (is_hex(path, 32)
            || headers.contains_key("x-gradle-version")
            || accept.is_some_and(|accept| accept.starts_with(ENTRY)))
}

pub(super) async fn answer(asked: &Asked<'_>, body: Received) -> Response<Body> {
    // Apart from what Tuist's plugin stores, whose digests are declared.
    let key = store::Key {
        category: "http".into(),
        ..key(&asked.grant, Kind::Gradle, &asked.path[0])
    };
    match asked.call.method.as_str() {
        "GET" | "HEAD" => free::get(asked, &key).await,
        "PUT" => free::put(asked, &key, Existing::Keep, body).await,
        _ => not_allowed("GET, HEAD, PUT"),
    }
}
