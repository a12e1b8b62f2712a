//! `/api/cache/cas/{id}`: objects of the Xcode compilation cache.

use store::Kind;

use super::{Answer, CHECKSUM, is_type, key, name, no_content, refuse, terms};
use crate::answer::{invalid, not_found, overloaded};
use crate::auth::{Grant, to_hex};
use crate::body::Received;
use crate::call::Call;
use crate::traffic::Failure;
use crate::transfer::{download, upload};

/// GET: the object or the part of it that is asked for.
pub(super) async fn get(call: &Call<'_>, grant: &Grant, id: &str) -> Answer {
    let key = key(grant, Kind::XcodeCas, &name("id", id)?);
    let flow = call.shared.metrics.traffic.flow("xcode");
    Ok(match download::find(call, &key, flow).await {
        Some(object) => object_response(call, grant, object).await,
        None => not_found(),
    })
}

/// An object with the digest that its uploader declared, if any: one that was computed here would
/// certify damaged bytes.
pub(super) async fn object_response(
    call: &Call<'_>,
    grant: &Grant,
    object: store::Object,
) -> http::Response<crate::body::Body> {
    let sha256 = object.sha256();
    let mut response = match download::send(call, grant, object).await {
        Ok(response) => response,
        Err(busy) => return overloaded(busy),
    };
    if response.status().is_success() {
        download::immutable(&mut response);
        if let Some(sha256) = sha256 {
            download::put(&mut response, CHECKSUM, &to_hex(&sha256));
        }
    }
    response
}

/// POST: stores the body, unless there is an object already.
pub(super) async fn post(call: &Call<'_>, grant: &Grant, id: &str, body: Received) -> Answer {
    let key = key(grant, Kind::XcodeCas, &name("id", id)?);
    if !is_type(call, "application/octet-stream") {
        let text = "Content-Type must be application/octet-stream";
        return Err(invalid(&[("content-type", text)]).into());
    }
    let flow = call.shared.metrics.traffic.flow("xcode");
    let terms = terms(call, grant, call.shared.settings.max_cas_bytes)
        .inspect_err(|_| flow.failed(Failure::InvalidChecksum))?;
    Ok(
        match upload::receive(call, &key, terms, Vec::new(), body, flow).await {
            Ok(_) => no_content(),
            Err(fault) => refuse(fault),
        },
    )
}
