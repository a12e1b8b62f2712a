//! `/api/cache/module/*`: artifacts of modules, uploaded in parts.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use store::{Begun, Error, Key, Kind, Outcome};

use super::sessions::{Incomplete, Refusal, Session};
use super::{
    Answer, JSON_LIMIT, MODULE_LIMIT, NOT_PERSISTED, PART_LIMIT, SLOW, TOO_LARGE, TRUNCATED,
    bad_request, is_type, key, no_content, refuse, terms,
};
use crate::answer::{busy, empty, invalid, json as json_response, message, not_found};
use crate::auth::{Grant, parse_hex, to_hex};
use crate::body::{Body, Broken, Received};
use crate::call::Call;
use crate::pace::Pace;
use crate::target::unsafe_name;
use crate::transfer::json::{self, NoJson};
use crate::transfer::upload::{self, Gathered};
use crate::transfer::{download, upload::Fault};

/// Most parts: at the largest size, parts of a hundredth of the largest length are enough.
const PARTS: u32 = 20_000;

/// The key that the query names.
fn of(call: &Call<'_>, grant: &Grant) -> Result<Key, Box<Response<Body>>> {
    let mut errors = Vec::new();
    let mut take = |name: &'static str, default: Option<&'static str>| {
        let value = call.parameter(name).or(default);
        match value {
            None => errors.push((name, "Missing field")),
            Some(value) => errors.extend(unsafe_name(value).map(|why| (name, why))),
        }
        value.unwrap_or_default().to_owned()
    };
    let (hash, name) = (take("hash", None), take("name", None));
    let category = take("cache_category", Some("builds"));
    if !errors.is_empty() {
        return Err(invalid(&errors).into());
    }
    Ok(Key {
        category,
        name,
        ..key(grant, Kind::Module, &hash)
    })
}

/// HEAD: whether there is one.
pub(super) async fn has(call: &Call<'_>, grant: &Grant) -> Answer {
    let found = call.shared.store.head(&of(call, grant)?).await;
    Ok(match found {
        Ok(Some(_)) => no_content(),
        Ok(None) => empty(StatusCode::NOT_FOUND),
        Err(error) => {
            call.shared.complain("read", &error);
            empty(StatusCode::NOT_FOUND)
        }
    })
}

/// GET: the artifact or the part of it that is asked for.
pub(super) async fn get(call: &Call<'_>, grant: &Grant) -> Answer {
    let flow = call.shared.metrics.traffic.flow("module");
    Ok(match download::find(call, &of(call, grant)?, flow).await {
        Some(object) => super::xcode::object_response(call, grant, object).await,
        None => not_found(),
    })
}

/// POST start: opens a session, unless there is an artifact already.
pub(super) async fn start(call: &Call<'_>, grant: &Grant) -> Answer {
    let key = of(call, grant)?;
    let multipart = &call.shared.metrics.traffic.multipart;
    multipart.starts.add(1);
    let sessions = &call.shared.sessions;
    let too_many = || {
        multipart.refused.add(1);
        Box::new(busy("Too many unfinished uploads. Please try again later."))
    };
    if !sessions.has_room(&grant.project) {
        return Err(too_many());
    }
    let terms = terms(call, grant, MODULE_LIMIT)?;
    let id = match call.shared.store.put(&key, terms).await {
        Ok(Begun::Exists) => None,
        Ok(Begun::Upload(upload)) => {
            let opened = sessions.open(&grant.project, key, upload);
            Some(opened.map_err(|_| too_many())?.to_string())
        }
        Err(error) => return Err(refuse(Fault::of(call, &error)).into()),
    };
    Ok(json_response(StatusCode::OK, &json!({ "upload_id": id })))
}

fn refused(refusal: Refusal) -> Box<Response<Body>> {
    Box::new(match refusal {
        Refusal::Unknown => message(StatusCode::NOT_FOUND, "Upload not found"),
        Refusal::Fixed => message(
            StatusCode::CONFLICT,
            "Part was already written and cannot be replaced",
        ),
        Refusal::TooLarge => message(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Total upload size exceeds 2GB limit",
        ),
        Refusal::TooMany => busy("Too many unfinished uploads. Please try again later."),
    })
}

fn session(
    call: &Call<'_>,
    grant: &Grant,
    key: &Key,
) -> Result<(String, std::sync::Arc<Session>), Box<Response<Body>>> {
    let Some(id) = call.parameter("upload_id") else {
        return Err(invalid(&[("upload_id", "Missing field")]).into());
    };
    let found = call.shared.sessions.find(id, &grant.project, key);
    Ok((id.to_owned(), found.map_err(refused)?))
}

/// POST part: one part of a session.
pub(super) async fn part(call: &Call<'_>, grant: &Grant, mut body: Received) -> Answer {
    let key = of(call, grant)?;
    let number = call.parameter("part_number").unwrap_or_default();
    let number = match number.parse::<u32>() {
        Ok(number) if (1..=PARTS).contains(&number) => number,
        _ => return Err(invalid(&[("part_number", "Invalid integer")]).into()),
    };
    let (id, session) = session(call, grant, &key)?;
    let too_large = || {
        let text = "Part exceeds 10MB limit";
        Box::new(message(StatusCode::PAYLOAD_TOO_LARGE, text))
    };
    let declared = body.length();
    if declared.is_some_and(|length| length > PART_LIMIT) {
        return Err(too_large());
    }
    let mut arriving = session.begin(number).map_err(refused)?;
    let failed = |error: Error| {
        call.shared.sessions.close(&id);
        call.shared.complain("write", &error);
        Box::new(message(StatusCode::INTERNAL_SERVER_ERROR, NOT_PERSISTED))
    };
    let room = declared.unwrap_or(PART_LIMIT);
    // All of it at once if its length is known, so that a refusal comes early.
    if let Some(declared) = declared {
        arriving.reserve(declared).map_err(refused)?;
    }
    let scratch = call.shared.store.scratch(&key, room).await;
    let mut scratch = scratch.map_err(failed)?;
    let mut pace = Pace::new(&call.shared.settings.timeouts, declared);
    loop {
        match body.next(&mut pace).await {
            Ok(Some(bytes)) => {
                let length = bytes.len() as u64;
                if scratch.len() + length > PART_LIMIT {
                    return Err(too_large());
                }
                if declared.is_none() {
                    arriving.reserve(length).map_err(refused)?;
                }
                scratch.write(&bytes).await.map_err(failed)?;
            }
            Ok(None) => break,
            Err(Broken::Slow) => return Err(message(StatusCode::REQUEST_TIMEOUT, SLOW).into()),
            Err(Broken::Ended) => return Err(message(StatusCode::BAD_REQUEST, TRUNCATED).into()),
        }
    }
    let multipart = &call.shared.metrics.traffic.multipart;
    multipart.parts.add(1);
    multipart.part_bytes.add(scratch.len());
    arriving.came(scratch).await.map_err(failed)?;
    Ok(no_content())
}

/// POST complete: makes the object of its parts. Unless a part is still on its way, the session is
/// over, whatever comes of it.
pub(super) async fn complete(call: &Call<'_>, grant: &Grant, mut body: Received) -> Answer {
    let key = of(call, grant)?;
    let (id, session) = session(call, grant, &key)?;
    let (parts, sha256) = listed(call, &mut body).await?;
    let multipart = &call.shared.metrics.traffic.multipart;
    let sessions = &call.shared.sessions;
    let Ok(sha256) = sha256.map(|text| parse_hex(&text).ok_or(())).transpose() else {
        sessions.close(&id);
        let text = "checksum_sha256 must be 64 hex characters";
        return Err(message(StatusCode::BAD_REQUEST, text).into());
    };
    let completed = session.complete(&parts, sha256).await;
    if !matches!(completed, Err(Incomplete::Busy)) {
        sessions.close(&id);
    }
    match completed {
        Ok((Outcome::Stored | Outcome::Exists, bytes)) => {
            multipart.completions.add(1);
            multipart.completed_bytes.add(bytes);
            Ok(no_content())
        }
        // As if it had been stored just before the project was cleaned.
        Err(Incomplete::Store(Error::Cleaned)) => Ok(no_content()),
        Err(Incomplete::Parts) => {
            let text = "Parts mismatch or missing parts";
            Err(message(StatusCode::BAD_REQUEST, text).into())
        }
        Err(Incomplete::Store(Error::Digest { declared, received })) => {
            multipart.mismatches.add(1);
            let (declared, assembled) = (to_hex(&declared), to_hex(&received));
            let text = format!(
                "Assembled artifact does not match checksum_sha256: declared {declared}, \
                 assembled {assembled}"
            );
            Err(message(StatusCode::UNPROCESSABLE_ENTITY, &text).into())
        }
        Err(incomplete) => {
            if let Incomplete::Store(error) = incomplete {
                call.shared.complain("write", &error);
            }
            Err(message(StatusCode::INTERNAL_SERVER_ERROR, NOT_PERSISTED).into())
        }
    }
}

/// The numbers of the parts, in order and each once, and the digest as it was declared.
async fn listed(
    call: &Call<'_>,
    body: &mut Received,
) -> Result<(Vec<u32>, Option<String>), Box<Response<Body>>> {
    if !is_type(call, "application/json") {
        let text = "Content-Type must be application/json";
        return Err(invalid(&[("content-type", text)]).into());
    }
    let text = match upload::gather(call, body, JSON_LIMIT).await {
        Ok(Gathered::Whole(pieces)) => json::join(&pieces),
        Ok(Gathered::Beginning(_)) => {
            return Err(message(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE).into());
        }
        Err(fault) => return Err(refuse(fault).into()),
    };
    let value = json::parse(&text).map_err(|NoJson| bad_request())?;
    parts(&value).map_err(|(name, why)| Box::new(invalid(&[(name, why)])))
}

type Parts = (Vec<u32>, Option<String>);

fn parts(value: &Value) -> Result<Parts, (&'static str, &'static str)> {
    let list = match &value["parts"] {
        Value::Array(list) => list,
        Value::Null => return Err(("parts", "Missing field: parts")),
        _ => return Err(("parts", "Invalid array. Got another type")),
    };
    let number = |each: &Value| match each {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let numbers: Option<Vec<u32>> = list.iter().map(number).collect();
    let mut numbers = numbers.ok_or(("parts", "Invalid integer"))?;
    numbers.sort_unstable();
    numbers.dedup();
    let sha256 = match &value["checksum_sha256"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        _ => return Err(("checksum_sha256", "Invalid string. Got another type")),
    };
    Ok((numbers, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_parts() {
        let listed = parts(&json!({"parts": [2, "1", 2], "checksum_sha256": "a"}));
        assert_eq!(listed, Ok((vec![1, 2], Some("a".into()))));
        assert_eq!(parts(&json!({"parts": []})), Ok((vec![], None)));
        for bad in [
            json!({}),
            json!([]),
            json!({"parts": 1}),
            json!({"parts": [-1]}),
            json!({"parts": [1.5]}),
            json!({"parts": ["x"]}),
            json!({"parts": [1], "checksum_sha256": 1}),
        ] {
            assert!(parts(&bad).is_err(), "{bad}");
        }
    }
}
