//! moon over HTTP: Bazel's two folders, with results as JSON, which [`crate::references::action`]
//! reads as well.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201, 200 if the blob is there |
//! | nothing there, or a blob that the result names is gone | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 404 | 429, 503 |
//! | other digest; disk | 404 | 400; 507 |

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap};

use super::bazel;
use super::statuses::{PLAIN, Statuses};

pub(super) const STATUSES: Statuses = Statuses {
    throttled: (404, 429),
    unavailable: (404, 503),
    busy: (404, 429),
    ..PLAIN
};

/// `agent`: whether it says that it is moon.
pub(super) fn is(path: &str, agent: bool, headers: &HeaderMap) -> bool {
    let json = |name| {
        headers
            .get(name)
            .is_some_and(|value| value == "application/json")
    };
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    bazel::is(first, rest) && (agent || json(ACCEPT) || json(CONTENT_TYPE))
}
