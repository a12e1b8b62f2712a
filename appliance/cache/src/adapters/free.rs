//! Free keys: any path below the base that no other client has, as curl and helpers of Go and the
//! like use them.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201, 200 if the object is there |
//! | nothing there | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 429, 503 | 429, 503 |
//! | disk | 404 | 507 |
//!
//! The first writer of a key wins, except where a client changes what it wrote.

use http::{Response, StatusCode};
use store::{Existing, Key, Kind, Terms};

use super::statuses::{PLAIN, Statuses};
use super::{Asked, Client, LIMIT, not_allowed};
use crate::answer::empty;
use crate::api::key;
use crate::body::{Body, Received};
use crate::transfer::{download, upload};

pub(super) const STATUSES: Statuses = PLAIN;

/// The key of a path.
pub(super) fn of(asked: &Asked<'_>) -> Key {
    // No segment holds a slash.
    key(&asked.grant, Kind::Free, &asked.path.join("/"))
}

pub(super) async fn answer(asked: &Asked<'_>, body: Received) -> Response<Body> {
    match (asked.call.method.as_str(), asked.client) {
        ("GET" | "HEAD", _) => get(asked, &of(asked)).await,
        ("PUT", Client::Ccache) => put(asked, &of(asked), Existing::Replace, body).await,
        ("PUT", _) => put(asked, &of(asked), Existing::Keep, body).await,
        ("DELETE", Client::Ccache) => remove(asked, &of(asked)).await,
        _ => not_allowed("GET, HEAD, PUT"),
    }
}

pub(super) async fn get(asked: &Asked<'_>, key: &Key) -> Response<Body> {
    let flow = asked.call.shared.metrics.traffic.flow(asked.client.group());
    match download::find(asked.call, key, flow).await {
        Some(object) => asked.send(object).await,
        None => empty(StatusCode::NOT_FOUND),
    }
}

pub(super) async fn put(
    asked: &Asked<'_>,
    key: &Key,
    existing: Existing,
    body: Received,
) -> Response<Body> {
    let terms = Terms {
        limit: LIMIT,
        existing,
        writer: asked.grant.writer(asked.call.id),
        ..Terms::default()
    };
    let flow = asked.call.shared.metrics.traffic.flow(asked.client.group());
    let landed = upload::receive(asked.call, key, terms, Vec::new(), body, flow).await;
    asked.client.statuses().put(landed)
}

async fn remove(asked: &Asked<'_>, key: &Key) -> Response<Body> {
    match asked.call.shared.store.remove(key).await {
        Ok(true) => empty(StatusCode::NO_CONTENT),
        Ok(false) => empty(StatusCode::NOT_FOUND),
        Err(error) => {
            asked.call.shared.complain("remove", &error);
            super::say(asked.client.statuses().disk, "Cannot remove")
        }
    }
}
