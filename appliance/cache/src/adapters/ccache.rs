//! ccache: keys of 33 letters and digits (40 in older versions), flat (`/{key}`), in subfolders
//! (`/{2}/{rest}`), or as Bazel's `/ac/`.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201: the last writer wins, because manifests grow |
//! | nothing there | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 429, 503 | 429, 503 |
//! | disk | 404 | 507 |
//!
//! It takes every bad answer to a GET for a miss; after a refused PUT one compilation writes no more.

use super::statuses::{PLAIN, Statuses};

pub(super) const STATUSES: Statuses = PLAIN;

/// Whether a path is one of its layout with subfolders.
pub(super) fn is(path: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is = |(first, rest): (&str, &str)| {
        first.len() == 2 && (31..=38).contains(&rest.len()) && digits(first) && digits(rest)
    };
    path.split_once('/').is_some_and(is)
}
