//! 1Password Connect, by its OpenAPI description (API 1.8): the calls that read.

use serde_json::{Value, json};

use crate::library::{Field, Item, Kind, Library, Shelf};
use crate::server::{Answer, Certificate, Received, Server};

/// A Connect server.
pub struct Connect {
    /// Where it answers.
    pub server: Server,
    /// What it holds.
    pub library: Library,
    /// The token that it takes.
    pub token: String,
}

impl Connect {
    /// Starts one that holds nothing.
    pub fn start(certificate: Certificate) -> Self {
        let library = Library::default();
        let token = format!("eyJ.{}.double", crate::id());
        let (shown, good) = (library.clone(), format!("Bearer {token}"));
        let server = Server::start(certificate, move |request| answer(request, &shown, &good));
        Self {
            server,
            library,
            token,
        }
    }
}

fn error(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({ "status": status, "message": message }))
}

fn answer(request: &Received, library: &Library, token: &str) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if path == "/heartbeat" {
        return Answer {
            status: 200,
            body: b".".to_vec(),
        };
    }
    if request.header("authorization") != Some(token) {
        return error(401, "Invalid token signature");
    }
    if request.method != "GET" || !query.is_empty() {
        return error(400, "the double reads only, and knows no filters");
    }
    let vaults = library.lock();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let find = |id: &str| vaults.iter().find(|vault| vault.id == id);
    match parts[..] {
        ["v1", "vaults"] => {
            Answer::json(200, &Value::Array(vaults.iter().map(vault_json).collect()))
        }
        ["v1", "vaults", vault] => match find(vault) {
            Some(vault) => Answer::json(200, &vault_json(vault)),
            None => error(404, "Unable to retrieve vault"),
        },
        ["v1", "vaults", vault, "items"] => match find(vault) {
            Some(vault) => {
                let items = vault.items.iter().map(|item| item_json(vault, item, false));
                Answer::json(200, &Value::Array(items.collect()))
            }
            None => error(404, "Unable to retrieve vault"),
        },
        ["v1", "vaults", vault, "items", item] => {
            let item = find(vault)
                .and_then(|vault| Some((vault, vault.items.iter().find(|i| i.id == item)?)));
            match item {
                Some((vault, item)) => Answer::json(200, &item_json(vault, item, true)),
                None => error(404, "Unable to retrieve item"),
            }
        }
        _ => error(404, "not found"),
    }
}

fn vault_json(vault: &Shelf) -> Value {
    json!({
        "id": vault.id, "name": vault.name, "description": "", "type": "USER_CREATED",
        "attributeVersion": 1, "contentVersion": vault.content_version,
        "items": vault.items.len(),
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
    })
}

fn item_json(vault: &Shelf, item: &Item, full: bool) -> Value {
    let mut json = json!({
        "id": item.id, "title": item.title, "vault": { "id": vault.id }, "category": "SECURE_NOTE",
        "version": 1, "state": if item.trashed { "ARCHIVED" } else { "ACTIVE" },
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
    });
    if full {
        let sections: std::collections::BTreeSet<_> = item
            .fields
            .iter()
            .filter_map(|field| field.section.clone())
            .collect();
        json["sections"] = sections
            .iter()
            .map(|(id, label)| json!({ "id": id, "label": label }))
            .collect();
        json["fields"] = item.fields.iter().map(field_json).collect();
    }
    json
}

fn field_json(field: &Field) -> Value {
    let kind = match field.kind {
        Kind::Text => "STRING",
        Kind::Concealed => "CONCEALED",
        Kind::OneTimePassword => "OTP",
    };
    let mut json = json!({
        "id": field.id, "label": field.label, "type": kind, "purpose": "", "value": field.value,
    });
    if let Some((id, _)) = &field.section {
        json["section"] = json!({ "id": id });
    }
    if field.kind == Kind::OneTimePassword {
        json["totp"] = "123456".into();
    }
    json
}
