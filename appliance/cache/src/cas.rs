//! `/api/cache/cas/{id}`: objects of the Xcode compilation cache.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, RANGE,
};
use http::{Response, StatusCode};
use store::{Begun, Error, Key, Outcome, Terms, Upload};

use crate::answer::{empty, invalid, message, not_found, overloaded};
use crate::auth::{parse_hex, to_hex};
use crate::body::{Body, Broken, Received};
use crate::metrics::Xcode;
use crate::pace::Pace;
use crate::range::{self, Asked};
use crate::server::Shared;
use crate::transport::budget::Share;

const TRUNCATED: &str = "Request body was truncated before reaching the declared Content-Length";
const CHECKSUM: HeaderName = HeaderName::from_static("tuist-checksum-sha256");

/// GET: the object or the part of it that is asked for.
pub(crate) async fn get(
    shared: &Shared,
    share: Share,
    key: &Key,
    headers: &HeaderMap,
) -> Response<Body> {
    let metrics = &shared.metrics.xcode;
    let object = match shared.store.get(key).await {
        Ok(Some(object)) => object,
        Ok(None) => {
            metrics.misses.add(1);
            return not_found();
        }
        // A miss costs the client a build, an error might cost it the cache.
        Err(error) => {
            metrics.misses.add(1);
            shared.complain("read", &error);
            return not_found();
        }
    };
    let length = object.len();
    let etag = format!("\"{}\"", object.content());
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = match (text(&RANGE), headers.get(IF_RANGE)) {
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
            return response;
        }
    };
    metrics.hits.add(1);
    let sha256 = object.sha256();
    let body = match Body::download(object.read(part), share).await {
        Ok(body) => body,
        Err(busy) => return overloaded(busy),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    put(&mut response, CONTENT_TYPE, "application/octet-stream");
    put(&mut response, ETAG, &etag);
    put(&mut response, ACCEPT_RANGES, "bytes");
    put(
        &mut response,
        CACHE_CONTROL,
        "public, max-age=31536000, immutable",
    );
    if let Some(content_range) = content_range {
        put(&mut response, CONTENT_RANGE, &content_range);
    }
    if let Some(sha256) = sha256 {
        put(&mut response, CHECKSUM, &to_hex(&sha256));
    }
    response
}

fn put(response: &mut Response<Body>, name: HeaderName, value: &str) {
    // All of them are made here from numbers and printable text.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// POST: stores the body.
pub(crate) async fn post(
    shared: &Shared,
    key: &Key,
    headers: &HeaderMap,
    body: Received,
) -> Response<Body> {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    if !essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/octet-stream")
    }) {
        return invalid(&[(
            "content-type",
            "Content-Type must be application/octet-stream",
        )]);
    }
    let metrics = &shared.metrics.xcode;
    metrics.attempts.add(1);
    let declared = headers
        .get(CHECKSUM)
        .map(|value| value.to_str().ok().and_then(parse_hex));
    let terms = Terms {
        limit: shared.settings.max_cas_bytes,
        length: body.length(),
        sha256: match declared {
            Some(None) => return refuse(metrics, "invalid_checksum"),
            Some(declared) => declared,
            None => None,
        },
        ..Terms::default()
    };
    let (limit, length) = (terms.limit, terms.length);
    match shared.store.put(key, terms).await {
        Ok(Begun::Exists) => drain(shared, body, limit, length).await,
        Ok(Begun::Upload(upload)) => receive(shared, upload, body, length).await,
        Err(error) => fail(shared, &error),
    }
}

async fn receive(
    shared: &Shared,
    mut upload: Box<Upload>,
    mut body: Received,
    length: Option<u64>,
) -> Response<Body> {
    let metrics = &shared.metrics.xcode;
    let mut pace = Pace::new(&shared.settings.timeouts, length);
    let mut received = 0;
    loop {
        match body.next(&mut pace).await {
            Ok(Some(bytes)) => {
                received += bytes.len() as u64;
                if let Err(error) = upload.write(&bytes).await {
                    return fail(shared, &error);
                }
            }
            Ok(None) => break,
            Err(Broken::Slow) => return refuse(metrics, "timeout"),
            Err(Broken::Ended) => {
                // Mostly nobody reads this any more.
                metrics.cancelled.add(1);
                return message(StatusCode::BAD_REQUEST, TRUNCATED);
            }
        }
    }
    match upload.finish().await {
        Ok(Outcome::Stored) => {
            metrics.stored.add(1);
            metrics.upload_bytes.add(received);
            empty(StatusCode::NO_CONTENT)
        }
        Ok(Outcome::Exists) => {
            metrics.exists.add(1);
            empty(StatusCode::NO_CONTENT)
        }
        Err(error) => fail(shared, &error),
    }
}

/// Reads a body whose object is there already.
async fn drain(
    shared: &Shared,
    mut body: Received,
    limit: u64,
    length: Option<u64>,
) -> Response<Body> {
    let metrics = &shared.metrics.xcode;
    let mut pace = Pace::new(&shared.settings.timeouts, length);
    let mut received = 0;
    loop {
        match body.next(&mut pace).await {
            Ok(Some(bytes)) => received += bytes.len() as u64,
            // It is there, whatever became of the copy.
            Ok(None) | Err(Broken::Ended) => break,
            Err(Broken::Slow) => return refuse(metrics, "timeout"),
        }
        if received > limit {
            return refuse(metrics, "too_large");
        }
    }
    metrics.exists.add(1);
    empty(StatusCode::NO_CONTENT)
}

/// The answer to an upload that the store refuses.
fn fail(shared: &Shared, error: &Error) -> Response<Body> {
    let metrics = &shared.metrics.xcode;
    match error {
        Error::TooLarge { .. } => refuse(metrics, "too_large"),
        Error::Length { .. } => refuse(metrics, "truncated"),
        Error::Digest { declared, received } => {
            metrics.failed("checksum_mismatch");
            let (declared, received) = (to_hex(declared), to_hex(received));
            let text = format!(
                "Body does not match tuist-checksum-sha256: declared {declared}, received {received}"
            );
            message(StatusCode::UNPROCESSABLE_ENTITY, &text)
        }
        error => {
            shared.complain("write", error);
            refuse(metrics, "persist_error")
        }
    }
}

/// The answer to an upload that failed, by the reason under which it is counted.
fn refuse(metrics: &Xcode, reason: &str) -> Response<Body> {
    metrics.failed(reason);
    let (status, text) = match reason {
        "too_large" => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "Request body exceeded allowed size",
        ),
        "timeout" => (StatusCode::REQUEST_TIMEOUT, "Request body read timed out"),
        "invalid_checksum" => (
            StatusCode::BAD_REQUEST,
            "tuist-checksum-sha256 must be 64 hex characters",
        ),
        "truncated" => (StatusCode::BAD_REQUEST, TRUNCATED),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "Failed to persist artifact",
        ),
    };
    message(status, text)
}
