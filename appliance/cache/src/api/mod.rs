//! The routes of Tuist: `/api/cache/*`, `/api/registry/swift/*`, and what describes them.
//!
//! Statuses, texts and limits are those of the service that this one replaces.

mod clean;
mod gradle;
mod keyvalue;
mod module;
pub(crate) mod ready;
pub(crate) mod registry;
pub(crate) mod sessions;
pub(crate) mod spec;
mod xcode;

use std::borrow::Cow;

use http::header::HeaderName;
use http::{Method, Response, StatusCode};
use store::{Key, Kind, Terms};

use crate::accounts::concerning;
use crate::answer::{empty, invalid, message, not_found};
use crate::auth::{Denial, Grant, NoHandle, Project, parse_hex, to_hex};
use crate::body::{Body, Received};
use crate::call::Call;
use crate::target::{Undecodable, decode, unsafe_name};
use crate::transfer::upload::Fault;

/// Declared and served digest of an object.
pub(crate) const CHECKSUM: HeaderName = HeaderName::from_static("tuist-checksum-sha256");
/// Largest Gradle entry in bytes.
const GRADLE_LIMIT: u64 = 100 << 20;
/// Largest part of a module in bytes.
const PART_LIMIT: u64 = 10 << 20;
/// Largest module in bytes.
const MODULE_LIMIT: u64 = 2 << 30;
/// Largest entry of the Xcode action cache in bytes.
const ENTRY_LIMIT: u64 = 1 << 20;
/// Largest other JSON in bytes.
const JSON_LIMIT: u64 = 8_000_000;

const TOO_LARGE: &str = "Request body exceeded allowed size";
const SLOW: &str = "Request body read timed out";
const NOT_PERSISTED: &str = "Failed to persist artifact";
const TRUNCATED: &str = "Request body was truncated before reaching the declared Content-Length";

/// A route below `/api/cache/`, with the encoded rest of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    GetEntry(&'a str),
    PutEntry,
    GetObject(&'a str),
    PostObject(&'a str),
    HasModule,
    GetModule,
    StartModule,
    PutPart,
    CompleteModule,
    GetGradle(&'a str),
    PutGradle(&'a str),
    Clean,
}

impl<'a> Route<'a> {
    /// Of a method and what follows `/api/cache/`.
    fn of(method: &Method, path: &'a str) -> Option<Self> {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if rest.contains('/') {
            return None;
        }
        match (method.as_str(), first, rest) {
            ("GET", "keyvalue", id) if !id.is_empty() => Some(Self::GetEntry(id)),
            ("PUT", "keyvalue", "") if path == "keyvalue" => Some(Self::PutEntry),
            ("GET", "cas", id) if !id.is_empty() => Some(Self::GetObject(id)),
            ("POST", "cas", id) if !id.is_empty() => Some(Self::PostObject(id)),
            ("POST", "module", "start") => Some(Self::StartModule),
            ("POST", "module", "part") => Some(Self::PutPart),
            ("POST", "module", "complete") => Some(Self::CompleteModule),
            ("HEAD", "module", id) if !id.is_empty() => Some(Self::HasModule),
            ("GET", "module", id) if !id.is_empty() => Some(Self::GetModule),
            ("GET", "gradle", key) if !key.is_empty() => Some(Self::GetGradle(key)),
            ("PUT", "gradle", key) if !key.is_empty() => Some(Self::PutGradle(key)),
            ("DELETE", "clean", "") if path == "clean" => Some(Self::Clean),
            _ => None,
        }
    }
}

/// Answers a request below `/api/cache/`; `path` is what follows.
pub(crate) async fn answer(call: &Call<'_>, path: &str, body: Received) -> Response<Body> {
    // Before anything else, also before what there is not: without a token there is nothing.
    let asked = project(call);
    let access = &call.shared.access;
    let grant = access
        .authorize(call.caller(), asked.as_ref().ok(), call.action())
        .await;
    let grant = match grant {
        Ok(grant) => grant,
        // The credential is good, the query is not.
        Err(denial) => {
            return match asked {
                Err(response) if denial == Denial::Forbidden => *response,
                Err(_) => denial.response(),
                // Its credential is not good for it.
                Ok(project) => concerning(project.account, false, denial.response()),
            };
        }
    };
    let account = grant.project.account.clone();
    // All but the request that there is most of are boxed: the future of each request is as large as
    // the largest of them, and is moved some times.
    let answered = match Route::of(call.method, path) {
        None => Ok(not_found()),
        Some(Route::GetEntry(id)) => Box::pin(keyvalue::get(call, &grant, id)).await,
        Some(Route::PutEntry) => Box::pin(keyvalue::put(call, &grant, body)).await,
        Some(Route::GetObject(id)) => xcode::get(call, &grant, id).await,
        Some(Route::PostObject(id)) => Box::pin(xcode::post(call, &grant, id, body)).await,
        Some(Route::HasModule) => Box::pin(module::has(call, &grant)).await,
        Some(Route::GetModule) => Box::pin(module::get(call, &grant)).await,
        Some(Route::StartModule) => Box::pin(module::start(call, &grant)).await,
        Some(Route::PutPart) => Box::pin(module::part(call, &grant, body)).await,
        Some(Route::CompleteModule) => Box::pin(module::complete(call, &grant, body)).await,
        Some(Route::GetGradle(key)) => Box::pin(gradle::get(call, &grant, key)).await,
        Some(Route::PutGradle(key)) => Box::pin(gradle::put(call, &grant, key, body)).await,
        Some(Route::Clean) => Box::pin(clean::clean(call, &grant)).await,
    };
    let response = answered.unwrap_or_else(|response| *response);
    concerning(account, true, response)
}

/// What a handler answers; the error is an answer given early.
type Answer = Result<Response<Body>, Box<Response<Body>>>;

/// The project that the query names.
fn project(call: &Call<'_>) -> Result<Project, Box<Response<Body>>> {
    let Ok(query) = &call.query else {
        return Err(bad_request());
    };
    // One that is absent makes both absent: nothing that a token could give access to.
    let (Some(account), Some(project)) = (query.get("account_handle"), query.get("project_handle"))
    else {
        return Err(Denial::Forbidden.response().into());
    };
    Project::parse(account, project).map_err(|(name, why)| {
        Box::new(match why {
            NoHandle::Empty => message(StatusCode::BAD_REQUEST, &format!("Missing {name}")),
            NoHandle::EncodedTwice => {
                message(StatusCode::BAD_REQUEST, &format!("{name} is encoded twice"))
            }
            NoHandle::Unsafe(why) => invalid(&[(name, why)]),
        })
    })
}

fn bad_request() -> Box<Response<Body>> {
    Box::new(message(StatusCode::BAD_REQUEST, "Bad Request"))
}

/// A segment of the path as a name.
fn name<'a>(parameter: &'static str, text: &'a str) -> Result<Cow<'a, str>, Box<Response<Body>>> {
    let decoded = decode(text).map_err(|Undecodable| bad_request())?;
    match unsafe_name(&decoded) {
        Some(why) => Err(invalid(&[(parameter, why)]).into()),
        None => Ok(decoded),
    }
}

/// A key of the project.
pub(crate) fn key(grant: &Grant, kind: Kind, hash: &str) -> Key {
    Key {
        kind,
        account: grant.project.account.as_str().into(),
        project: grant.project.project.as_str().into(),
        hash: hash.into(),
        ..Key::default()
    }
}

/// The terms of an upload.
///
/// # Errors
///
/// The declared digest is none.
fn terms(call: &Call<'_>, grant: &Grant, limit: u64) -> Result<Terms, Box<Response<Body>>> {
    let declared = call.headers.get(CHECKSUM);
    let sha256 = match declared.map(|value| value.to_str().ok().and_then(parse_hex)) {
        Some(None) => {
            let text = format!("{CHECKSUM} must be 64 hex characters");
            return Err(message(StatusCode::BAD_REQUEST, &text).into());
        }
        Some(declared) => declared,
        None => None,
    };
    Ok(Terms {
        limit,
        sha256,
        writer: grant.writer(call.id),
        ..Terms::default()
    })
}

/// The answer to an upload that failed.
fn refuse(fault: Fault) -> Response<Body> {
    let (status, text) = match fault {
        Fault::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE.into()),
        Fault::Slow => (StatusCode::REQUEST_TIMEOUT, SLOW.into()),
        Fault::Truncated => (StatusCode::BAD_REQUEST, TRUNCATED.into()),
        Fault::Digest { declared, received } => {
            let (declared, received) = (to_hex(&declared), to_hex(&received));
            let text =
                format!("Body does not match {CHECKSUM}: declared {declared}, received {received}");
            (StatusCode::UNPROCESSABLE_ENTITY, text)
        }
        Fault::TooLong => return invalid(&[("id", "String length is larger than maxLength")]),
        Fault::Disk => (StatusCode::INTERNAL_SERVER_ERROR, NOT_PERSISTED.into()),
    };
    message(status, &text)
}

/// Whether the body says that it is of a type.
fn is_type(call: &Call<'_>, wanted: &str) -> bool {
    let value = call.text(http::header::CONTENT_TYPE).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(wanted)
}

/// 204.
fn no_content() -> Response<Body> {
    empty(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_are_routes() {
        let of =
            |method: &str, path| Route::of(&Method::from_bytes(method.as_bytes()).unwrap(), path);
        assert_eq!(
            of("GET", "keyvalue/0~a%3D"),
            Some(Route::GetEntry("0~a%3D"))
        );
        assert_eq!(of("PUT", "keyvalue"), Some(Route::PutEntry));
        assert_eq!(of("HEAD", "module/start"), Some(Route::HasModule));
        assert_eq!(of("POST", "module/start"), Some(Route::StartModule));
        for (method, path) in [
            ("GET", ""),
            ("GET", "cas"),
            ("GET", "cas/"),
            ("GET", "cas/a/b"),
            ("PUT", "keyvalue/"),
            ("PUT", "keyvalue/a"),
            ("PUT", "cas/a"),
            ("POST", "module/a"),
            ("DELETE", "clean/"),
            ("DELETE", "gradle/a"),
            ("get", "cas/a"),
        ] {
            assert_eq!(of(method, path), None, "{method} {path}");
        }
    }
}
