//! `/api/cache/keyvalue`: entries of the Xcode action cache, which name objects of its CAS.
//!
//! An entry whose objects are gone makes a build fail, so it is never served: each id that its
//! values show is looked up, and stays for a while once it was vouched for.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use store::{Existing, Key, Kind, Terms};

use super::{Answer, ENTRY_LIMIT, TOO_LARGE, bad_request, is_type, key, no_content, refuse};
use crate::answer::{invalid, json_text, message};
use crate::auth::Grant;
use crate::body::Received;
use crate::call::Call;
use crate::references::{self, xcode};
use crate::target::{Undecodable, decode};
use crate::transfer::download;
use crate::transfer::json::{self, NoJson};
use crate::transfer::upload::{self, Gathered};

/// GET: the entry, byte for byte as it was stored.
pub(super) async fn get(call: &Call<'_>, grant: &Grant, id: &str) -> Answer {
    let id = decode(id).map_err(|Undecodable| bad_request())?;
    let entries = &call.shared.metrics.traffic.entries;
    entries.gets.add(1);
    let key = key(grant, Kind::KeyValue, &id);
    match find(call, grant, &key).await {
        Some(text) => {
            entries.hits.add(1);
            entries.get_bytes.add(text.len() as u64);
            Ok(json_text(StatusCode::OK, text))
        }
        None => {
            entries.misses.add(1);
            let text = format!("No entries found for CAS ID {id}.");
            Err(message(StatusCode::NOT_FOUND, &text).into())
        }
    }
}

async fn find(call: &Call<'_>, grant: &Grant, key: &Key) -> Option<Vec<u8>> {
    let store = &call.shared.store;
    let object = match store.get(key).await {
        Ok(object) => object?,
        Err(error) => {
            call.shared.complain("read", &error);
            return None;
        }
    };
    let text = download::whole(call, object, ENTRY_LIMIT * 2).await?;
    let names = names(grant, &scan(&text).0);
    if references::vouch(store, &names) {
        return Some(text);
    }
    call.shared.metrics.traffic.entries.dropped.add(1);
    references::drop_entry(call.shared, key).await;
    None
}

/// PUT: stores a list of values in the place of what there was.
pub(super) async fn put(call: &Call<'_>, grant: &Grant, mut body: Received) -> Answer {
    let entries = &call.shared.metrics.traffic.entries;
    entries.puts.add(1);
    let answered = store(call, grant, &mut body).await;
    match &answered {
        Ok(_) => entries.stored.add(1),
        Err(_) => entries.errors.add(1),
    }
    answered
}

async fn store(call: &Call<'_>, grant: &Grant, body: &mut Received) -> Answer {
    let too_large = || Box::new(message(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
    if !is_type(call, "application/json") {
        let text = "Content-Type must be application/json";
        return Err(invalid(&[("content-type", text)]).into());
    }
    if body.length().is_some_and(|length| length > ENTRY_LIMIT) {
        return Err(too_large());
    }
    let text = match upload::gather(call, body, ENTRY_LIMIT).await {
        Ok(Gathered::Whole(pieces)) => json::join(&pieces),
        Ok(Gathered::Beginning(_)) => return Err(too_large()),
        Err(fault) => return Err(refuse(fault).into()),
    };
    let value = json::parse(&text).map_err(|NoJson| bad_request())?;
    let (id, text) = entry(&value).map_err(|errors| Box::new(invalid(&errors)))?;
    let (ids, values, unknown) = {
        let (ids, values, unknown) = scan(text.as_bytes());
        (names(grant, &ids), values, unknown)
    };
    let entries = &call.shared.metrics.traffic.entries;
    entries.values.add(values);
    entries.unknown.add(unknown);
    let terms = Terms {
        limit: ENTRY_LIMIT * 2,
        length: Some(text.len() as u64),
        existing: Existing::Replace,
        names: references::bounded(ids),
        writer: grant.writer(call.id),
        ..Terms::default()
    };
    let key = key(grant, Kind::KeyValue, id);
    match references::put(call, &key, terms, Bytes::from(text)).await {
        Ok(()) => Ok(no_content()),
        Err(fault) => Err(refuse(fault).into()),
    }
}

/// The id and the text to store of a body; or what is wrong with it, by parameter.
fn entry(value: &Value) -> Result<(&str, String), Vec<(&'static str, &'static str)>> {
    let mut errors = Vec::new();
    if !value.is_object() {
        return Err(vec![("", "Invalid object. Got another type")]);
    }
    let id = match &value["cas_id"] {
        Value::String(id) if !id.is_empty() => id.as_str(),
        Value::String(_) => {
            errors.push(("cas_id", "String length is smaller than minLength: 1"));
            ""
        }
        Value::Null => {
            errors.push(("cas_id", "Missing field: cas_id"));
            ""
        }
        _ => {
            errors.push(("cas_id", "Invalid string. Got another type"));
            ""
        }
    };
    let list = match &value["entries"] {
        Value::Array(list) => list.as_slice(),
        Value::Null => {
            errors.push(("entries", "Missing field: entries"));
            &[]
        }
        _ => {
            errors.push(("entries", "Invalid array. Got another type"));
            &[]
        }
    };
    let mut values = Vec::with_capacity(list.len());
    for each in list {
        match &each["value"] {
            Value::String(value) => values.push(json!({ "value": value })),
            Value::Null => errors.push(("entries/value", "Missing field: value")),
            _ => errors.push(("entries/value", "Invalid string. Got another type")),
        }
    }
    // One word for each kind of error is enough.
    errors.dedup();
    if errors.is_empty() {
        Ok((id, json!({ "entries": values }).to_string()))
    } else {
        Err(errors)
    }
}

/// The ids in a stored text; how many values there are, and in how many no id was found.
fn scan(text: &[u8]) -> (Vec<String>, u64, u64) {
    let Ok(value) = json::parse(text) else {
        return (Vec::new(), 0, 0);
    };
    let (mut ids, mut count, mut unknown) = (Vec::new(), 0, 0);
    for each in value["entries"].as_array().into_iter().flatten() {
        let before = ids.len();
        if let Some(value) = each["value"].as_str() {
            xcode::ids(value, &mut ids);
        }
        count += 1;
        unknown += u64::from(ids.len() == before);
    }
    ids.sort_unstable();
    ids.dedup();
    (ids, count, unknown)
}

fn names(grant: &Grant, ids: &[String]) -> Vec<Key> {
    ids.iter()
        .map(|id| key(grant, Kind::XcodeCas, id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_checked() {
        let right = json!({"cas_id": "a", "entries": [{"value": "b", "more": 1}], "more": []});
        let (id, text) = entry(&right).unwrap();
        assert_eq!((id, &*text), ("a", r#"{"entries":[{"value":"b"}]}"#));
        let empty = json!({"cas_id": "a", "entries": []});
        assert_eq!(entry(&empty).unwrap().1, r#"{"entries":[]}"#);
        let wrong = entry(&json!({"entries": [{}, {}, {"value": 1}]})).unwrap_err();
        let names: Vec<_> = wrong.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cas_id", "entries/value", "entries/value"]);
        assert!(entry(&json!([])).is_err());
        assert!(entry(&json!({"cas_id": "", "entries": {}})).is_err());
    }
}
