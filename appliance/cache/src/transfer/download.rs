//! From the store to a response.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_RANGE, RANGE,
};
use http::{Method, Response, StatusCode};
use store::{Key, Object};

use crate::answer::message;
use crate::auth::Grant;
use crate::body::Body;
use crate::call::Call;
use crate::range::{self, Asked};
use crate::traffic::Flow;
use crate::transport::budget::Overloaded;

/// Looks an object up and counts what came out. A disk that fails is a miss too: a miss costs the
/// client a build, an error might cost it the cache.
pub(crate) async fn find(call: &Call<'_>, key: &Key, flow: &Flow) -> Option<Object> {
    let found = match call.shared.store.get(key).await {
        Ok(found) => found,
        Err(error) => {
            call.shared.complain("read", &error);
            None
        }
    };
    match &found {
        Some(_) => flow.hits.add(1),
        None => flow.misses.add(1),
    }
    found
}

/// The object, or the part of it that the request asks for (RFC 9110, 13 and 14), with a strong
/// validator that comes from its content; without the bytes for HEAD.
///
/// # Errors
///
/// There is no memory for it now.
pub(crate) async fn send(
    call: &Call<'_>,
    grant: &Grant,
    object: Object,
) -> Result<Response<Body>, Overloaded> {
    let length = object.len();
    let etag = format!("\"{}\"", object.content());
    let asked = match (call.text(RANGE), call.headers.get(IF_RANGE)) {
        (Some(range), None) => range::parse(range, length),
        (Some(range), Some(condition)) if *condition == *etag => range::parse(range, length),
        _ => Asked::Whole,
    };
    let (status, part, content_range) = match asked {
        Asked::Whole => (StatusCode::OK, 0..length, None),
        Asked::Part(part) => {
            let content_range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            (StatusCode::PARTIAL_CONTENT, part, Some(content_range))
        }
        Asked::Beyond => {
            let mut response = message(StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable");
            put(&mut response, CONTENT_RANGE, &format!("bytes */{length}"));
            return Ok(response);
        }
    };
    let mut response = if call.method == Method::HEAD {
        let mut response = Response::new(Body::bytes(""));
        let length = part.end - part.start;
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        response
    } else {
        let share = call.shared.budget.share(&grant.project.account);
        Response::new(Body::download(object.read(part), share).await?)
    };
    *response.status_mut() = status;
    put(&mut response, ETAG, &etag);
    let headers = response.headers_mut();
    let always = HeaderValue::from_static;
    headers.insert(CONTENT_TYPE, always("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, always("bytes"));
    if let Some(content_range) = content_range {
        put(&mut response, CONTENT_RANGE, &content_range);
    }
    Ok(response)
}

/// Says that what is under this key never changes.
pub(crate) fn immutable(response: &mut Response<Body>) {
    let always = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(CACHE_CONTROL, always);
}

/// Sets a header whose value is made here, or was a header's value before.
pub(crate) fn put(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// All bytes of a small object. `None`: it is longer than `limit`, or the disk failed.
pub(crate) async fn whole(call: &Call<'_>, object: Object, limit: u64) -> Option<Vec<u8>> {
    if object.len() > limit {
        return None;
    }
    let mut reader = object.read(0..limit);
    let mut bytes = Vec::with_capacity(reader.remaining() as usize);
    loop {
        match reader.next().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Some(bytes),
            Err(error) => {
                call.shared.complain("read", &error);
                return None;
            }
        }
    }
}
