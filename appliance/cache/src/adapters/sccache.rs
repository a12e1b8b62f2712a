//! sccache over WebDAV: `{prefix}/a/b/c/{64 digits}`, where every folder is there.
//!
//! | | GET, PROPFIND | PUT, MKCOL |
//! |---|---|---|
//! | well | 200, 207 | 201, 200 if the object is there |
//! | nothing there | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 404 | 429, 503 |
//! | disk | 404 | 507 |
//!
//! | `.sccache_check`, which every start of its daemon asks for | GET | PUT |
//! |---|---|---|
//! | well | 200 or 404, from memory | 201, overwritten |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | authorization does not answer | 404 | 503 |
//!
//! A start fails, and the compilation with it, if that GET gets anything but 200 or 404. A PUT that
//! is refused makes it read only, or leaves it without a cache.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use store::Existing;

use super::statuses::{PLAIN, Statuses};
use super::{Asked, free, is_hex, not_allowed, say};
use crate::answer::empty;
use crate::body::{Body, Received};
use crate::transfer::upload::{self, Gathered, Landed};

pub(super) const STATUSES: Statuses = Statuses {
    throttled: (404, 429),
    unavailable: (404, 503),
    busy: (404, 429),
    ..PLAIN
};

const CHECK: &str = ".sccache_check";
/// Most bytes of a check; sccache writes 13.
const CHECK_LIMIT: u64 = 256;
/// Most checks that are remembered.
const CHECKS: usize = 10_000;

/// What lies under the keys of checks: in memory, because it says nothing once it was answered.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<HashMap<store::Key, Bytes>>);

impl Checks {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<store::Key, Bytes>) -> T) -> T {
        // One step each.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, key: store::Key, bytes: Bytes) {
        self.with(|checks| {
            // They are written again at the next start.
            if checks.len() >= CHECKS {
                checks.clear();
            }
            checks.insert(key, bytes);
        });
    }

    fn get(&self, key: &store::Key) -> Option<Bytes> {
        self.with(|checks| checks.get(key).cloned())
    }
}

/// Whether a request is one of WebDAV, or of a path as sccache makes it.
pub(super) fn is(method: &Method, path: &str) -> bool {
    let mut segments = path.rsplit('/');
    let hash = segments.next().unwrap_or_default();
    let mut folder = |at: usize| segments.next() == hash.get(at..=at);
    matches!(method.as_str(), "PROPFIND" | "MKCOL")
        || is_check(path)
        || (is_hex(hash, 64) && folder(2) && folder(1) && folder(0))
}

/// Whether a path is that of a check.
fn is_check(path: &str) -> bool {
    path.rsplit('/').next() == Some(CHECK)
}

pub(super) async fn answer(asked: &Asked<'_>, body: Received) -> Response<Body> {
    let is_check = asked.path.last().is_some_and(|last| last == CHECK);
    match asked.call.method.as_str() {
        "PROPFIND" => properties(asked).await,
        "MKCOL" => empty(StatusCode::CREATED),
        "PUT" if is_check => put_check(asked, body).await,
        "GET" | "HEAD" if is_check => match asked.call.shared.checks.get(&free::of(asked)) {
            Some(bytes) => bytes_of(bytes),
            None => say(404, ""),
        },
        "GET" | "HEAD" if !asked.path.is_empty() => free::get(asked, &free::of(asked)).await,
        "PUT" if !asked.path.is_empty() => {
            free::put(asked, &free::of(asked), Existing::Keep, body).await
        }
        _ => not_allowed("GET, HEAD, PUT, PROPFIND, MKCOL"),
    }
}

fn bytes_of(bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::bytes(bytes));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn put_check(asked: &Asked<'_>, mut body: Received) -> Response<Body> {
    let limit = CHECK_LIMIT;
    let landed = match upload::gather(asked.call, &mut body, limit).await {
        Ok(Gathered::Whole(pieces)) => {
            let checks = &asked.call.shared.checks;
            checks.put(free::of(asked), pieces.concat().into());
            Ok(Landed::Stored)
        }
        Ok(Gathered::Beginning(_)) => Err(upload::Fault::TooLarge { limit }),
        Err(fault) => Err(fault),
    };
    STATUSES.put(landed)
}

/// PROPFIND (RFC 4918, 9.1), of the resource itself only: an object, or a folder.
async fn properties(asked: &Asked<'_>) -> Response<Body> {
    let mut length = None;
    if !asked.path.is_empty() {
        let key = free::of(asked);
        let check = asked.call.shared.checks.get(&key);
        length = check.map(|bytes| bytes.len() as u64);
        if length.is_none()
            && let Ok(Some(info)) = asked.call.shared.store.head(&key).await
        {
            length = Some(info.length);
        }
    }
    let kind = match length {
        Some(length) => {
            format!("<D:getcontentlength>{length}</D:getcontentlength><D:resourcetype/>")
        }
        None => "<D:resourcetype><D:collection/></D:resourcetype>".into(),
    };
    // No time of a change is known that means anything; the epoch is as good as another.
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\"><D:response>\
         <D:href>{}</D:href><D:propstat><D:prop>\
         <D:getlastmodified>Thu, 01 Jan 1970 00:00:00 GMT</D:getlastmodified>{kind}</D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>\n",
        escaped(asked.call.path)
    );
    let mut response = Response::new(Body::bytes(text));
    *response.status_mut() = StatusCode::MULTI_STATUS;
    let kind = HeaderValue::from_static("application/xml; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A text as character data of XML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '"' | '\'' => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_sccache_makes() {
        let hash = format!("abc{}", "0".repeat(61));
        assert!(is(&Method::GET, &format!("a/b/c/{hash}")));
        assert!(is(&Method::PUT, &format!("pre/fix/a/b/c/{hash}")));
        assert!(is(&Method::GET, "pre/.sccache_check"));
        for other in [
            hash.clone(),
            format!("b/a/c/{hash}"),
            format!("ac/{hash}"),
            "a/b/c/abc".into(),
            "x.sccache_check".into(),
        ] {
            assert!(!is(&Method::GET, &other), "{other}");
        }
    }

    #[test]
    fn names_do_not_break_xml() {
        assert_eq!(escaped("/a'<b>&\""), "/a&#39;&#60;b&#62;&#38;&#34;");
    }
}
