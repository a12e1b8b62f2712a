//! From a request to its handler.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use http::header::{EXPECT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::answer::{not_found, text};
use crate::api::{ready, registry, spec};
use crate::body::{Body, Received};
use crate::call::Call;
use crate::metrics::Observed;
use crate::server::{Listener, Shared};
use crate::target::Query;
use crate::transport::connection::Connection;
use crate::{adapters, api, plain, stored};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a body that are read for nothing, so that the client sees an early answer.
const LINGER: u64 = 1 << 20;

/// Answers one request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let group = group(request.method(), request.uri().path(), request.headers());
    let activity = &connection.activity;
    let mut observed = Observed::new(&shared.metrics, activity, request.method(), group);
    let id = request_id(request.headers());
    let mut response = match connection.listener {
        Listener::Https => service(&shared, &connection, &id, request).await,
        Listener::Http if is_plain(&shared, &connection, &request) => {
            service(&shared, &connection, &id, request).await
        }
        Listener::Http => plain::answer(&shared, &request),
        Listener::Metrics => metrics(&shared, &request),
    };
    observed.answered(response.status());
    observed.identify(id.clone(), response.body().whose().cloned());
    response.headers_mut().insert(REQUEST_ID, id);
    response.body_mut().observe(observed);
    response
}

/// Whether a request without TLS is served: other clients than Tuist's, in networks that are listed.
fn is_plain<B>(shared: &Shared, connection: &Connection, request: &Request<B>) -> bool {
    let networks = &shared.settings.plain_networks;
    adapters::is_path(request.uri().path())
        && networks
            .iter()
            .any(|network| network.contains(connection.peer))
}

/// Label of a request: bounded, whatever clients send.
fn group(method: &Method, path: &str, headers: &HeaderMap) -> &'static str {
    const GROUPS: [(&str, &str); 6] = [
        ("/api/cache/cas/", "xcode"),
        ("/api/cache/keyvalue", "keyvalue"),
        ("/api/cache/gradle/", "gradle"),
        ("/api/cache/module/", "module"),
        ("/api/registry/swift", "registry"),
        ("/metrics", "metrics"),
    ];
    let known = GROUPS.iter().find(|(prefix, _)| path.starts_with(prefix));
    let known = known.map(|(_, group)| *group);
    known
        .or_else(|| adapters::group(method, path, headers))
        .unwrap_or("other")
}

/// The client's own id if it looks like one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut id = match headers.get(REQUEST_ID) {
        Some(id)
            if (1..=200).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic) =>
        {
            id.clone()
        }
        _ => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            // The keys of a hasher are as random as the standard library gives them.
            let random = SEED.hash_one(number);
            let mut digits = [0; 24];
            for (at, digit) in digits.iter_mut().enumerate() {
                let word = if at < 16 { random } else { number << 32 };
                *digit = b"0123456789abcdef"[(word >> (60 - 4 * (at % 16)) & 15) as usize];
            }
            // Hexadecimal digits.
            HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
        }
    };
    // It never comes again: not worth a place in the table of HPACK.
    id.set_sensitive(true);
    id
}

/// `/up`, for clients and for the machine's own health.
pub(crate) fn up(shared: &Shared) -> Response<Body> {
    let version = &shared.settings.version;
    text(StatusCode::OK, format!("UP! Version: {version}"))
}

pub(crate) fn is_up<B>(request: &Request<B>) -> bool {
    request.uri().path() == "/up" && matches!(*request.method(), Method::GET | Method::HEAD)
}

fn metrics<B>(shared: &Shared, request: &Request<B>) -> Response<Body> {
    if is_up(request) {
        return up(shared);
    }
    if request.uri().path() != "/metrics" || request.method() != Method::GET {
        return not_found();
    }
    let version = &shared.settings.version;
    let (sessions, unfinished) = shared.sessions.usage();
    shared.metrics.traffic.multipart.open.set(sessions as u64);
    shared.metrics.traffic.multipart.unfinished.set(unfinished);
    let more = |text: &mut _| {
        stored::write(&shared.store.usage(), text);
        shared.access.write(text);
        shared.budget.write(text);
        shared.certificates.write(text);
    };
    let metrics = shared.metrics.text(version, &shared.store.status(), more);
    let mut response = text(StatusCode::OK, metrics);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The service itself.
async fn service(
    shared: &Shared,
    connection: &Connection,
    id: &HeaderValue,
    request: Request<Incoming>,
) -> Response<Body> {
    if is_up(&request) {
        return up(shared);
    }
    let (parts, body) = request.into_parts();
    // HTTP/2 refuses the rest of one stream; who waits for 100 Continue sends nothing yet.
    let lingers = parts.version < Version::HTTP_2 && !parts.headers.contains_key(EXPECT);
    let body = Received::new(body, &connection.activity, if lingers { LINGER } else { 0 });
    let call = Call {
        shared,
        method: &parts.method,
        path: parts.uri.path(),
        query: Query::parse(parts.uri.query()),
        headers: &parts.headers,
        peer: connection.peer,
        // Printable, as `request_id` sees to.
        id: id.to_str().unwrap_or("-"),
    };
    if let Some(path) = call.path.strip_prefix("/api/cache/") {
        return api::answer(&call, path, body).await;
    }
    if adapters::is_path(call.path) {
        // Boxed: what is large and not inside of every request's future is not moved with each.
        return Box::pin(adapters::answer(&call, body)).await;
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    match call.path {
        "/ready" if reads => ready::answer(shared),
        "/api/spec" if reads => spec::answer(shared),
        path if is_registry(path) => registry::answer(),
        _ => not_found(),
    }
}

fn is_registry(path: &str) -> bool {
    let rest = path.strip_prefix("/api/registry/swift");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded() {
        let group = |path| super::group(&Method::GET, path, &HeaderMap::new());
        assert_eq!(group("/api/cache/cas/abc"), "xcode");
        assert_eq!(group("/api/cache/keyvalue/abc"), "keyvalue");
        assert_eq!(group("/v1/cache/1"), "nx");
        assert_eq!(group("/up"), "other");
        assert_eq!(group("/api/registry/swiftly"), "registry");
        assert!(!is_registry("/api/registry/swiftly") && is_registry("/api/registry/swift/a"));
    }
}
