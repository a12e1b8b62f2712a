//! Nx: `/v1/cache/{hash}`, below the base and at the root.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 200, 409 if the artifact is there |
//! | nothing there | 404 | |
//! | no credential | 401 | 401 |
//! | none for this | 404 | 403 |
//! | overload, authorization does not answer, payment | 404 | 403 |
//! | too large, broken off, disk | 404 | 403 |
//!
//! Every other status makes the whole run fail, even after all tasks passed. A bad token is said all
//! the same, as text, or it would never be found.

use http::Response;
use store::{Existing, Kind};

use super::statuses::{PLAIN, Statuses};
use super::{Asked, free, not_allowed, say};
use crate::api::key;
use crate::body::{Body, Received};

pub(super) const STATUSES: Statuses = Statuses {
    stored: 200,
    exists: 409,
    forbidden: (404, 403),
    payment: (404, 403),
    throttled: (404, 403),
    unavailable: (404, 403),
    busy: (404, 403),
    too_large: 403,
    wrong: 403,
    disk: 403,
    ..PLAIN
};

pub(super) async fn answer(asked: &Asked<'_>, body: Received) -> Response<Body> {
    let [_, _, hash] = &asked.path[..] else {
        return say(404, "");
    };
    let key = store::Key {
        category: "nx".into(),
        ..key(&asked.grant, Kind::Free, hash)
    };
    match asked.call.method.as_str() {
        "GET" | "HEAD" => free::get(asked, &key).await,
        "PUT" => free::put(asked, &key, Existing::Keep, body).await,
        _ => not_allowed("GET, HEAD, PUT"),
    }
}
