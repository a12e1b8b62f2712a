//! OpenBao (and Vault) by its API documentation: KV version 2, tokens and AppRole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::server::{Answer, Certificate, Received, Server};

/// An OpenBao server.
pub struct Bao {
    /// Where it answers.
    pub server: Server,
    state: Arc<Mutex<State>>,
}

/// What it holds and whom it trusts.
#[derive(Debug, Default)]
pub struct State {
    /// Namespace that all paths are in; none: the root.
    pub namespace: Option<String>,
    /// Tokens that are valid, with the paths (below the mount) that each may read. `*`: all.
    pub tokens: BTreeMap<String, Vec<String>>,
    /// Role id and secret id of the one AppRole.
    pub approle: Option<(String, String)>,
    /// What a login is worth, in seconds.
    pub lease: u64,
    /// Mount and path → secret.
    pub secrets: BTreeMap<(String, String), Kept>,
    /// Whether it is sealed.
    pub sealed: bool,
}

/// A secret and its versions.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Current version, from 1.
    pub version: u64,
    /// What it holds.
    pub data: Map<String, Value>,
    /// Whether the current version was deleted.
    pub deleted: bool,
}

impl Bao {
    /// Starts one that holds nothing and trusts nobody.
    pub fn start(certificate: Certificate) -> Self {
        let state = Arc::new(Mutex::new(State {
            lease: 3600,
            ..State::default()
        }));
        let shown = state.clone();
        let server = Server::start(certificate, move |request| {
            answer(
                request,
                &mut shown.lock().unwrap_or_else(PoisonError::into_inner),
            )
        });
        Self { server, state }
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a new version with one more key, or another value for it.
    pub fn set(&self, mount: &str, path: &str, key: &str, value: impl Into<Value>) {
        let mut state = self.state();
        let kept = state
            .secrets
            .entry((mount.into(), path.into()))
            .or_default();
        kept.version += 1;
        kept.deleted = false;
        kept.data.insert(key.into(), value.into());
    }
}

fn errors(status: u16, errors: &[&str]) -> Answer {
    Answer::json(status, &json!({ "errors": errors }))
}

fn answer(request: &Received, state: &mut State) -> Answer {
    if state.sealed {
        return errors(503, &["Vault is sealed"]);
    }
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let path = &unescape(path);
    if request.header("x-vault-request") != Some("true") {
        return errors(412, &["required 'X-Vault-Request' header is missing"]);
    }
    if request.header("x-vault-namespace") != state.namespace.as_deref() {
        return errors(404, &["route entry not found"]);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if request.path == "/v1/auth/approle/login" && request.method == "POST" {
        let given = (body["role_id"].as_str(), body["secret_id"].as_str());
        let good = state.approle.as_ref();
        if good.is_none_or(|(role, secret)| given != (Some(role), Some(secret))) {
            return errors(400, &["invalid role or secret ID"]);
        }
        let token = format!("s.{}", crate::id());
        state.tokens.insert(token.clone(), vec!["*".into()]);
        return Answer::json(
            200,
            &json!({
                "request_id": "double", "lease_id": "", "renewable": false, "lease_duration": 0,
                "data": null, "wrap_info": null, "warnings": null,
                "auth": {
                    "client_token": token, "accessor": "double", "policies": ["default"],
                    "lease_duration": state.lease, "renewable": true, "entity_id": "double",
                    "token_type": "service", "orphan": true,
                },
            }),
        );
    }
    let Some(allowed) = request
        .header("x-vault-token")
        .and_then(|t| state.tokens.get(t))
    else {
        return errors(403, &["permission denied"]);
    };
    if (request.method.as_str(), path.as_str()) == ("GET", "/v1/auth/token/lookup-self") {
        let lease = state.lease;
        return Answer::json(200, &json!({ "data": { "ttl": lease, "renewable": true } }));
    }
    if (request.method.as_str(), path.as_str()) == ("POST", "/v1/auth/token/renew-self") {
        let lease = state.lease;
        return Answer::json(
            200,
            &json!({ "auth": { "lease_duration": lease, "renewable": true } }),
        );
    }
    if request.method != "GET" || !query.is_empty() {
        return errors(405, &["the double reads the current version only"]);
    }
    for ((mount, path_of), kept) in &state.secrets {
        for kind in ["data", "metadata"] {
            if *path != format!("/v1/{mount}/{kind}/{path_of}") {
                continue;
            }
            if !allowed
                .iter()
                .any(|allowed| allowed == "*" || allowed == path_of)
            {
                return errors(403, &["permission denied"]);
            }
            return match kind {
                "data" => data(kept),
                _ => metadata(kept),
            };
        }
    }
    // What is not allowed is not told apart from what is not there.
    if allowed.iter().any(|allowed| allowed == "*") {
        errors(404, &[])
    } else {
        errors(403, &["permission denied"])
    }
}

/// Undoes percent-encoding; what is none stays.
fn unescape(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn data(kept: &Kept) -> Answer {
    let deletion = if kept.deleted {
        "2026-02-02T00:00:00Z"
    } else {
        ""
    };
    let metadata = json!({
        "version": kept.version, "created_time": "2026-01-01T00:00:00Z",
        "deletion_time": deletion, "destroyed": false, "custom_metadata": null,
    });
    let data = if kept.deleted {
        Value::Null
    } else {
        Value::Object(kept.data.clone())
    };
    let body = json!({
        "request_id": "double", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": { "data": data, "metadata": metadata },
        "wrap_info": null, "warnings": null, "auth": null,
    });
    Answer::json(if kept.deleted { 404 } else { 200 }, &body)
}

fn metadata(kept: &Kept) -> Answer {
    Answer::json(
        200,
        &json!({
            "request_id": "double", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": {
                "current_version": kept.version, "oldest_version": 0, "max_versions": 0,
                "created_time": "2026-01-01T00:00:00Z", "updated_time": "2026-01-01T00:00:00Z",
                "versions": { kept.version.to_string(): {
                    "created_time": "2026-01-01T00:00:00Z",
                    "deletion_time": if kept.deleted { "2026-02-02T00:00:00Z" } else { "" },
                    "destroyed": false,
                } },
            },
        }),
    )
}
