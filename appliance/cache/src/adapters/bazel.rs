//! Bazel's HTTP cache: results of actions in `/ac/`, the blobs that they name in `/cas/`. moon and
//! ccache's bazel layout use the same two.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201, 200 if the blob is there |
//! | nothing there, or a blob that the result names is gone | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 429, 503 | 429, 503 |
//! | other digest; disk | 404 | 400; 507 |
//!
//! Bazel takes every bad answer for a miss, with a warning, and retries nothing.

use http::{Method, Response, StatusCode};
use store::{Existing, Key, Kind, Terms};

use super::statuses::{PLAIN, Statuses};
use super::{Asked, LIMIT, is_hex, not_allowed};
use crate::answer::empty;
use crate::api::key;
use crate::auth::parse_hex;
use crate::body::{Body, Received};
use crate::references::action::{self, EMPTY, Named};
use crate::references::{bounded, drop_entry, vouch};
use crate::transfer::upload::{self, Gathered};
use crate::transfer::{download, json};

pub(super) const STATUSES: Statuses = PLAIN;

/// Results up to this length in bytes are searched for what they name. Longer ones are objects of
/// ccache, or hold their outputs themselves.
const RESULT: u64 = 1 << 20;
/// Trees up to this length in bytes are searched.
const TREE: u64 = 16 << 20;

pub(super) fn is(first: &str, rest: &str) -> bool {
    matches!(first, "ac" | "cas") && is_hex(rest, 64)
}

pub(super) async fn answer(asked: &Asked<'_>, body: Received) -> Response<Body> {
    // One spelling of a digest.
    let hash = asked.path[1].to_ascii_lowercase();
    match (asked.call.method.as_str(), &*asked.path[0]) {
        ("GET" | "HEAD", "cas") => get_blob(asked, &hash).await,
        ("PUT", "cas") => put_blob(asked, &hash, body).await,
        ("GET" | "HEAD", _) => get_result(asked, &hash).await,
        ("PUT", _) => put_result(asked, &hash, body).await,
        _ => not_allowed("GET, HEAD, PUT"),
    }
}

async fn get_blob(asked: &Asked<'_>, hash: &str) -> Response<Body> {
    let call = asked.call;
    if hash == EMPTY {
        return empty(StatusCode::OK);
    }
    let key = key(&asked.grant, Kind::Blob, hash);
    let flow = call.shared.metrics.traffic.flow(asked.client.group());
    match download::find(call, &key, flow).await {
        Some(object) => {
            let mut response = asked.send(object).await;
            if response.status().is_success() {
                download::immutable(&mut response);
            }
            response
        }
        None => empty(StatusCode::NOT_FOUND),
    }
}

/// The key of a blob is its SHA-256, which is checked.
async fn put_blob(asked: &Asked<'_>, hash: &str, body: Received) -> Response<Body> {
    let terms = Terms {
        limit: LIMIT,
        sha256: parse_hex(hash),
        writer: asked.grant.writer(asked.call.id),
        ..Terms::default()
    };
    let key = key(&asked.grant, Kind::Blob, hash);
    put(asked, &key, terms, Vec::new(), body).await
}

async fn put(
    asked: &Asked<'_>,
    key: &Key,
    terms: Terms,
    first: Vec<bytes::Bytes>,
    body: Received,
) -> Response<Body> {
    let flow = asked.call.shared.metrics.traffic.flow(asked.client.group());
    let landed = upload::receive(asked.call, key, terms, first, body, flow).await;
    asked.client.statuses().put(landed)
}

/// A result is served only while all that it names is there; that then stays for a while.
async fn get_result(asked: &Asked<'_>, hash: &str) -> Response<Body> {
    let call = asked.call;
    let key = key(&asked.grant, Kind::Action, hash);
    let flow = call.shared.metrics.traffic.flow(asked.client.group());
    let missing = || empty(StatusCode::NOT_FOUND);
    let Some(object) = download::find(call, &key, flow).await else {
        return missing();
    };
    if object.len() > RESULT {
        return asked.send(object).await;
    }
    let Some(bytes) = download::whole(call, object, RESULT).await else {
        return missing();
    };
    if let Some(named) = action::parse(&bytes)
        && !is_whole(asked, &named).await
    {
        call.shared.metrics.traffic.entries.dropped.add(1);
        drop_entry(call.shared, &key).await;
        return missing();
    }
    // The same bytes again: a newer result may lie there by now, which was not looked at.
    let mut response = Response::new(Body::bytes(match *call.method {
        Method::HEAD => Vec::new(),
        _ => bytes.clone(),
    }));
    download::put(
        &mut response,
        http::header::CONTENT_TYPE,
        "application/octet-stream",
    );
    if call.method == Method::HEAD {
        let length = http::header::CONTENT_LENGTH;
        response.headers_mut().insert(length, bytes.len().into());
    }
    response
}

async fn is_whole(asked: &Asked<'_>, named: &Named) -> bool {
    let blobs = blobs(asked, named).await;
    vouch(&asked.call.shared.store, &blobs)
}

/// All blobs that a result names, also by its trees. A tree that is missing is among them itself.
async fn blobs(asked: &Asked<'_>, named: &Named) -> Vec<Key> {
    let mut hashes = named.blobs.clone();
    for tree in &named.trees {
        let key = key(&asked.grant, Kind::Blob, tree);
        let Ok(Some(object)) = asked.call.shared.store.get(&key).await else {
            continue;
        };
        if let Some(bytes) = download::whole(asked.call, object, TREE).await {
            hashes.extend(action::tree(&bytes).unwrap_or_default());
        }
    }
    hashes.sort_unstable();
    hashes.dedup();
    let key = |hash: &String| key(&asked.grant, Kind::Blob, hash);
    hashes.iter().map(key).collect()
}

/// The last writer wins: a result whose blobs went is put again, and ccache changes its manifests.
async fn put_result(asked: &Asked<'_>, hash: &str, mut body: Received) -> Response<Body> {
    let call = asked.call;
    let mut terms = Terms {
        limit: LIMIT,
        existing: Existing::Replace,
        writer: asked.grant.writer(call.id),
        ..Terms::default()
    };
    let first = match upload::gather(call, &mut body, RESULT).await {
        Ok(Gathered::Whole(pieces)) => {
            if let Some(named) = action::parse(&json::join(&pieces)) {
                terms.names = bounded(blobs(asked, &named).await);
            }
            pieces
        }
        Ok(Gathered::Beginning(pieces)) => pieces,
        Err(fault) => return asked.client.statuses().put(Err(fault)),
    };
    let key = key(&asked.grant, Kind::Action, hash);
    put(asked, &key, terms, first, body).await
}
