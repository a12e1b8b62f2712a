//! `/api/cache/gradle/{cache_key}`: entries of Gradle's build cache, as Tuist's plugin sends them.

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use store::{Key, Kind};

use super::{Answer, GRADLE_LIMIT, key, name, refuse, terms};
use crate::answer::{empty, invalid};
use crate::auth::Grant;
use crate::body::Received;
use crate::call::Call;
use crate::traffic::Failure;
use crate::transfer::download;
use crate::transfer::upload::{self, Landed};

fn of(grant: &Grant, text: &str) -> Result<Key, Box<http::Response<crate::body::Body>>> {
    Ok(key(grant, Kind::Gradle, &name("cache_key", text)?))
}

/// GET: the entry.
pub(super) async fn get(call: &Call<'_>, grant: &Grant, text: &str) -> Answer {
    let key = of(grant, text)?;
    let flow = call.shared.metrics.traffic.flow("gradle");
    Ok(match download::find(call, &key, flow).await {
        Some(object) => super::xcode::object_response(call, grant, object).await,
        None => empty(StatusCode::NOT_FOUND),
    })
}

/// PUT: stores the body, unless there is an entry already. Its length must be declared.
pub(super) async fn put(call: &Call<'_>, grant: &Grant, text: &str, body: Received) -> Answer {
    let key = of(grant, text)?;
    // HTTP/2 may leave it out.
    if !call.headers.contains_key(CONTENT_LENGTH) {
        return Err(invalid(&[("content-length", "Missing header: content-length")]).into());
    }
    let flow = call.shared.metrics.traffic.flow("gradle");
    let terms =
        terms(call, grant, GRADLE_LIMIT).inspect_err(|_| flow.failed(Failure::InvalidChecksum))?;
    Ok(
        match upload::receive(call, &key, terms, Vec::new(), body, flow).await {
            Ok(Landed::Stored) => empty(StatusCode::CREATED),
            Ok(Landed::Exists) => empty(StatusCode::OK),
            Err(fault) => refuse(fault),
        },
    )
}
