//! `/ready`: whether this machine should get traffic, beside `/up`, which says that it lives.

use http::{Response, StatusCode};
use serde_json::json;
use store::Status;

use crate::answer::json;
use crate::body::Body;
use crate::server::Shared;

/// 200, or 503 with the reasons: the index is open and whole, what the store must keep free is kept
/// and can be written.
pub(crate) fn answer(shared: &Shared) -> Response<Body> {
    let mut reasons = Vec::new();
    match shared.store.status() {
        Status::Ready => {}
        Status::WritesFail(reason) => reasons.push(format!("nothing can be stored: {reason}")),
        Status::Unusable(reason) => reasons.push(format!("the store cannot be used: {reason}")),
    }
    if !shared.store.is_recovered() {
        reasons.push("the index is still being read".into());
    }
    let (status, ready) = if reasons.is_empty() {
        (StatusCode::OK, true)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, false)
    };
    json(status, &json!({ "ready": ready, "reasons": reasons }))
}
