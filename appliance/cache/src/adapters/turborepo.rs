//! Turborepo: `/v8/artifacts`, below the base and at the root.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 202, also if the artifact is there |
//! | nothing there | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | unsigned, where signatures are asked for | | 403 |
//! | overload, authorization does not answer | 429, 503 | 429, 503 |
//! | disk | 404 | 507 |
//!
//! It never fails a build: a GET is tried twice, a PUT once, and a server that is down is left alone
//! for half a minute.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderName,
};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use store::{Existing, Key, Kind, Terms};

use super::statuses::{PLAIN, Statuses};
use super::{Asked, LIMIT, not_allowed, say};
use crate::answer::{empty, json as json_response};
use crate::api::key;
use crate::auth::Project;
use crate::body::{Body, Received};
use crate::call::Call;
use crate::transfer::upload::{self, Gathered};
use crate::transfer::{download, json};

pub(super) const STATUSES: Statuses = Statuses {
    stored: 202,
    exists: 202,
    ..PLAIN
};

const TAG: HeaderName = HeaderName::from_static("x-artifact-tag");
const DURATION: HeaderName = HeaderName::from_static("x-artifact-duration");
/// Most bytes of a tag; with the duration it fits into a note of the store.
const TAG_LIMIT: usize = 600;
/// Largest JSON in bytes.
const JSON_LIMIT: u64 = 8_000_000;
/// Most artifacts that are asked for at once.
const QUESTIONS: usize = 10_000;

/// What is kept with an artifact.
#[derive(Debug, Default, PartialEq, Eq)]
struct Note {
    tag: Option<String>,
    /// Milliseconds.
    duration: Option<u64>,
}

impl Note {
    fn of(call: &Call<'_>) -> Option<Self> {
        let tag = match call.headers.get(TAG) {
            Some(_) => Some(call.text(TAG)?.to_owned()),
            None => None,
        };
        if tag.as_ref().is_some_and(|tag| tag.len() > TAG_LIMIT) {
            return None;
        }
        // A duration that is no number is not worth a refusal.
        let duration = call.text(DURATION).and_then(|text| text.parse().ok());
        Some(Self { tag, duration })
    }

    fn write(&self) -> Vec<u8> {
        match self {
            Self {
                tag: None,
                duration: None,
            } => Vec::new(),
            Self { tag, duration } => json!({ "tag": tag, "duration": duration })
                .to_string()
                .into(),
        }
    }

    fn read(note: &[u8]) -> Self {
        let value = json::parse(note).unwrap_or_default();
        Self {
            tag: value["tag"].as_str().map(Into::into),
            duration: value["duration"].as_u64(),
        }
    }
}

/// The answer to OPTIONS, to anybody: without the header that it asks for being allowed, the client
/// sends the request that follows without its token.
pub(super) fn preflight(call: &Call<'_>) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    let asked = call.text(ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.unwrap_or("Authorization, Content-Type, User-Agent");
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_HEADERS, asked),
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, PUT, POST, OPTIONS",
        ),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_MAX_AGE, "3600"),
    ] {
        download::put(&mut response, name, value);
    }
    response
}

/// Whether the team that the query names, if any, is the account of a project.
pub(super) fn is_team(call: &Call<'_>, project: &Project) -> bool {
    let account = project.account.as_str();
    let is = |name: &str| {
        let named = call.parameter(name);
        named.is_none_or(|team| {
            let short = team.strip_prefix("team_").unwrap_or(team);
            [team, short]
                .iter()
                .any(|team| team.eq_ignore_ascii_case(account))
        })
    };
    is("slug") && is("teamId")
}

pub(super) async fn answer(asked: &Asked<'_>, body: Received) -> Response<Body> {
    // Behind v8/artifacts.
    let rest: Vec<&str> = asked.path[2..].iter().map(|segment| &**segment).collect();
    match (asked.call.method.as_str(), &rest[..]) {
        ("GET", ["status"]) => json_response(StatusCode::OK, &json!({ "status": "enabled" })),
        ("POST", ["events"]) => events(asked, body).await,
        ("POST", []) => questions(asked, body).await,
        ("GET" | "HEAD", [hash]) => get(asked, &of(asked, hash)).await,
        ("PUT", [hash]) => put(asked, &of(asked, hash), body).await,
        (_, [_]) => not_allowed("GET, HEAD, PUT, POST, OPTIONS"),
        _ => say(404, ""),
    }
}

fn of(asked: &Asked<'_>, hash: &str) -> Key {
    Key {
        category: "turborepo".into(),
        ..key(&asked.grant, Kind::Free, hash)
    }
}

async fn get(asked: &Asked<'_>, key: &Key) -> Response<Body> {
    let flow = asked.call.shared.metrics.traffic.flow("turborepo");
    let Some(object) = download::find(asked.call, key, flow).await else {
        return empty(StatusCode::NOT_FOUND);
    };
    let note = Note::read(object.note());
    let mut response = asked.send(object).await;
    if let Some(tag) = &note.tag {
        download::put(&mut response, TAG, tag);
    }
    if let Some(duration) = note.duration {
        response.headers_mut().insert(DURATION, duration.into());
    }
    response
}

/// A signed artifact replaces an unsigned one, which would be a miss to clients that sign for ever.
async fn put(asked: &Asked<'_>, key: &Key, body: Received) -> Response<Body> {
    let call = asked.call;
    let Some(note) = Note::of(call) else {
        return say(400, "x-artifact-tag is too long or no text");
    };
    let existing = match &note.tag {
        None if call.shared.settings.signed_only => {
            return say(
                403,
                "Artifacts must be signed here: set signature in turbo.json",
            );
        }
        None => Existing::Keep,
        Some(_) => match call.shared.store.head(key).await {
            Ok(Some(info)) if Note::read(&info.note).tag.is_some() => Existing::Keep,
            _ => Existing::Replace,
        },
    };
    let terms = Terms {
        limit: LIMIT,
        existing,
        note: note.write(),
        writer: asked.grant.writer(call.id),
        ..Terms::default()
    };
    let flow = call.shared.metrics.traffic.flow("turborepo");
    match upload::receive(call, key, terms, Vec::new(), body, flow).await {
        Ok(_) => json_response(StatusCode::ACCEPTED, &json!({ "urls": [] })),
        Err(fault) => STATUSES.put(Err(fault)),
    }
}

/// What the client tells about its hits and misses; nothing is kept.
async fn events(asked: &Asked<'_>, mut body: Received) -> Response<Body> {
    match upload::gather(asked.call, &mut body, JSON_LIMIT).await {
        Ok(Gathered::Whole(_)) => json_response(StatusCode::OK, &json!({})),
        Ok(Gathered::Beginning(_)) => say(STATUSES.too_large, "Too many events"),
        Err(fault) => STATUSES.put(Err(fault)),
    }
}

/// `{"hashes": […]}`: which of them there are.
async fn questions(asked: &Asked<'_>, mut body: Received) -> Response<Body> {
    let pieces = match upload::gather(asked.call, &mut body, JSON_LIMIT).await {
        Ok(Gathered::Whole(pieces)) => pieces,
        Ok(Gathered::Beginning(_)) => return say(STATUSES.too_large, "Too many hashes"),
        Err(fault) => return STATUSES.put(Err(fault)),
    };
    let value = json::parse(&json::join(&pieces)).unwrap_or_default();
    let Some(hashes) = value["hashes"]
        .as_array()
        .filter(|all| all.len() <= QUESTIONS)
    else {
        return say(400, "hashes must be a list of at most 10000");
    };
    let mut answers = Map::new();
    for hash in hashes.iter().filter_map(Value::as_str) {
        let found = asked.call.shared.store.head(&of(asked, hash)).await;
        let answer = match found {
            Ok(Some(info)) => {
                let note = Note::read(&info.note);
                json!({ "size": info.length, "taskDurationMs": note.duration, "tag": note.tag })
            }
            _ => Value::Null,
        };
        answers.insert(hash.into(), answer);
    }
    json_response(StatusCode::OK, &Value::Object(answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back() {
        for note in [
            Note::default(),
            Note {
                tag: Some("a\"b==".into()),
                duration: None,
            },
            Note {
                tag: Some("c".repeat(TAG_LIMIT)),
                duration: Some(u64::MAX),
            },
            Note {
                tag: None,
                duration: Some(0),
            },
        ] {
            let written = note.write();
            assert!(written.len() <= store::TEXT_LIMIT);
            assert_eq!(Note::read(&written), note);
        }
        assert_eq!(Note::read(b"\xff"), Note::default());
    }
}
