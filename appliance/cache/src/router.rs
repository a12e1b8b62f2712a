//! From a request to its handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{EXPECT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use store::{Key, Kind};

use crate::answer::{invalid, message, not_found, text};
use crate::auth::{Action, Caller, Denial, NoHandle, Project};
use crate::body::{Body, Received};
use crate::metrics::Observed;
use crate::server::{Listener, Shared};
use crate::target::{Undecodable, decode, query, unsafe_name};
use crate::transport::connection::Connection;
use crate::{cas, plain};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers one request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    let mut observed = Observed::new(&shared.metrics, &connection.activity, method, path);
    let id = request_id(request.headers());
    let mut response = match connection.listener {
        Listener::Https => service(&shared, &connection, &id, request).await,
        Listener::Http => plain::answer(&shared, &request),
        Listener::Metrics => metrics(&shared, &request),
    };
    observed.answered(response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    response.body_mut().observe(observed);
    response
}

/// The client's own id if it looks like one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if let Some(id) = headers.get(REQUEST_ID) {
        let bytes = id.as_bytes();
        if (1..=200).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
            return id.clone();
        }
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The keys of a hasher are as random as the standard library gives them.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), number);
    let id = format!("{random:016x}{number:08x}");
    // Hexadecimal digits.
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"))
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
    let more = |text: &mut _| {
        shared.access.write(text);
        shared.budget.write(text);
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
    let linger = if lingers {
        shared.settings.max_cas_bytes
    } else {
        0
    };
    let body = Received::new(body, &connection.activity, linger);
    let Some(path) = parts.uri.path().strip_prefix("/api/cache/") else {
        return not_found();
    };
    let caller = Caller {
        headers: &parts.headers,
        peer: connection.peer,
        // Printable, as `request_id` sees to.
        request_id: id.to_str().unwrap_or("-"),
    };
    let action = match parts.method {
        Method::GET | Method::HEAD => Action::Read,
        _ => Action::Write,
    };
    // Before anything else, also before what there is not: without a token there is nothing.
    let asked = project(parts.uri.query());
    let grant = match shared
        .access
        .authorize(caller, asked.as_ref().ok(), action)
        .await
    {
        Ok(grant) => grant,
        // The credential is good, the query is not.
        Err(denial) => {
            return match asked {
                Err(response) if denial == Denial::Forbidden => *response,
                _ => denial.response(),
            };
        }
    };
    let Some(id) = path
        .strip_prefix("cas/")
        .filter(|id| !id.is_empty() && !id.contains('/'))
    else {
        return not_found();
    };
    if !matches!(parts.method, Method::GET | Method::POST) {
        return not_found();
    }
    let Ok(id) = decode(id) else {
        return message(StatusCode::BAD_REQUEST, "Bad Request");
    };
    if let Some(why) = unsafe_name(&id) {
        return invalid(&[("id", why)]);
    }
    let key = Key {
        kind: Kind::XcodeCas,
        account: grant.project.account.as_str().into(),
        project: grant.project.project.as_str().into(),
        hash: id.into_owned(),
        ..Key::default()
    };
    if parts.method == Method::GET {
        let share = shared.budget.share(&grant.project.account);
        cas::get(shared, share, &key, &parts.headers).await
    } else {
        cas::post(shared, &key, &parts.headers, body).await
    }
}

/// The project that a query names.
fn project(text: Option<&str>) -> Result<Project, Box<Response<Body>>> {
    let undecodable = |Undecodable| message(StatusCode::BAD_REQUEST, "Bad Request");
    let account = query(text, "account_handle").map_err(undecodable)?;
    let project = query(text, "project_handle").map_err(undecodable)?;
    // One that is absent makes both absent: nothing that a token could give access to.
    let (Some(account), Some(project)) = (account, project) else {
        return Err(Denial::Forbidden.response().into());
    };
    Project::parse(&account, &project).map_err(|(name, why)| {
        Box::new(match why {
            NoHandle::Empty => message(StatusCode::BAD_REQUEST, &format!("Missing {name}")),
            NoHandle::EncodedTwice => {
                message(StatusCode::BAD_REQUEST, &format!("{name} is encoded twice"))
            }
            NoHandle::Unsafe(why) => invalid(&[(name, why)]),
        })
    })
}
