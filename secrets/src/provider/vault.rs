//! Vault and OpenBao, KV version 2, by token or AppRole (their HTTP API documentation).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::text::SecretText;
use super::{Fetched, Provider, Results, foreign, json, refusal, replaced, together};
use crate::credentials::Credentials;
use crate::error::{Class, FetchError};
use crate::manifest::VaultLogin;
use crate::reference::{Reference, VaultReference};
use crate::secret::Secret;
use crate::transport::{Origin, Pending, Request, Response, Transport, escape};

/// A server of the KV version 2 API.
pub struct VaultServer {
    transport: Arc<dyn Transport>,
    credentials: Arc<dyn Credentials>,
    credential: String,
    origin: Origin,
    namespace: Option<String>,
    login: VaultLogin,
    session: tokio::sync::Mutex<Option<Session>>,
}

/// What a login is worth.
struct Session {
    /// What the credential held.
    given: Secret,
    token: Zeroizing<String>,
    /// When it is to be renewed. `None`: it lasts.
    renew: Option<Instant>,
}

#[derive(Deserialize)]
struct Login {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    client_token: SecretText,
    lease_duration: u64,
}

#[derive(Deserialize)]
struct Lookup {
    data: LookupData,
}

#[derive(Deserialize)]
struct LookupData {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    data: ReadData<'a>,
}

#[derive(Deserialize)]
struct ReadData<'a> {
    #[serde(borrow)]
    data: Option<BTreeMap<String, &'a RawValue>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

#[derive(Deserialize)]
struct Current {
    data: CurrentData,
}

#[derive(Deserialize)]
struct CurrentData {
    current_version: u64,
}

impl VaultServer {
    /// A server, and the credential with token or secret id for it.
    pub fn new(
        transport: Arc<dyn Transport>,
        credentials: Arc<dyn Credentials>,
        credential: String,
        origin: Origin,
        namespace: Option<String>,
        login: VaultLogin,
    ) -> Self {
        Self {
            transport,
            credentials,
            credential,
            origin,
            namespace,
            login,
            session: tokio::sync::Mutex::new(None),
        }
    }

    async fn send(&self, token: Option<&str>, request: Request) -> Result<Response, FetchError> {
        let mut request = request.header("x-vault-request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = token {
            request = request.header("x-vault-token", token);
        }
        self.transport.send(&self.origin, request).await
    }

    /// A token that is good for now.
    async fn token(&self) -> Result<Zeroizing<String>, FetchError> {
        let mut session = self.session.lock().await;
        if let Some(known) = session.as_mut() {
            if known.renew.is_none_or(|renew| Instant::now() < renew) {
                return Ok(known.token.clone());
            }
            if self.renew(known).await {
                return Ok(known.token.clone());
            }
        }
        *session = None;
        let new = self.log_in().await?;
        Ok(session.insert(new).token.clone())
    }

    /// Whether the token lasts longer now.
    async fn renew(&self, session: &mut Session) -> bool {
        let request = Request::with_body(
            http::Method::POST,
            "/v1/auth/token/renew-self",
            b"{}".into(),
        );
        let answer = self.send(Some(&session.token), request).await;
        let lease = answer
            .ok()
            .filter(|answer| answer.status == 200)
            .and_then(|answer| {
                let login: Login = json(&answer.body, "renewing the token").ok()?;
                Some(login.auth.lease_duration)
            });
        match lease {
            // No longer than a moment: its longest life is over.
            Some(lease) if lease >= 10 => {
                session.renew = renew_at(lease);
                true
            }
            _ => false,
        }
    }

    async fn log_in(&self) -> Result<Session, FetchError> {
        let given = self
            .credentials
            .read(&self.credential)
            .await
            .map_err(unauthorized)?;
        let (token, renew) = self.begin(&given).await?;
        Ok(Session {
            given,
            token,
            renew,
        })
    }

    /// A token, and when it is to be renewed, for what the credential holds.
    async fn begin(
        &self,
        given: &Secret,
    ) -> Result<(Zeroizing<String>, Option<Instant>), FetchError> {
        let secret = given
            .text()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| {
                let what = format!("the credential {} is no text", self.credential);
                FetchError::new(Class::Unauthorized, what)
            })?;
        match &self.login {
            VaultLogin::Token => {
                let request = Request::get("/v1/auth/token/lookup-self");
                let answer = self.send(Some(secret), request).await?;
                if answer.status != 200 {
                    return Err(self.refused(&answer, "looking the token up"));
                }
                let lookup: Lookup = json(&answer.body, "looking the token up")?;
                let renew = match lookup.data.renewable {
                    true => renew_at(lookup.data.ttl),
                    false => None,
                };
                Ok((Zeroizing::new(secret.into()), renew))
            }
            VaultLogin::AppRole { mount, role_id } => {
                let body = serde_json::json!({ "role_id": role_id });
                // The secret goes in by hand: a JSON value would leave a copy.
                let mut body = Zeroizing::new(body.to_string());
                body.pop();
                let quoted = Zeroizing::new(serde_json::to_string(secret).unwrap_or_default());
                let body = [&*body, ",\"secret_id\":", &quoted, "}"].concat();
                let path = format!("/v1/auth/{mount}/login");
                let request = Request::with_body(http::Method::POST, path, body.into());
                let answer = self.send(None, request).await?;
                if answer.status != 200 {
                    return Err(self.refused(&answer, "logging in with the AppRole"));
                }
                let login: Login = json(&answer.body, "logging in with the AppRole")?;
                if login.auth.client_token.0.is_empty() {
                    return Err(FetchError::new(Class::Protocol, "the login gave no token"));
                }
                let renew = renew_at(login.auth.lease_duration);
                Ok((login.auth.client_token.0, renew))
            }
        }
    }

    /// Why a login failed. 400 and 403 are both "not with this".
    fn refused(&self, answer: &Response, doing: &str) -> FetchError {
        match answer.status {
            400 | 403 => {
                let what = format!("{doing}: the credential {} is refused", self.credential);
                FetchError::new(
                    Class::Unauthorized,
                    format!("{what} (status {})", answer.status),
                )
            }
            404 => FetchError::new(
                Class::Protocol,
                format!("{doing}: there is no such login or namespace (status 404)"),
            ),
            _ => failure(answer, doing),
        }
        .at(&self.origin)
    }

    /// A GET with the token; logs in anew once if the token is refused.
    async fn get(&self, kind: &str, reference: &VaultReference) -> Result<Response, FetchError> {
        let mut path = String::from("/v1");
        let parts = reference
            .mount
            .split('/')
            .chain([kind])
            .chain(reference.path.split('/'));
        for part in parts {
            path.push('/');
            escape(part, &mut path);
        }
        if let Some(answer) = self.attempt(&path).await? {
            return Ok(answer);
        }
        match self.attempt(&path).await? {
            Some(answer) => Ok(answer),
            None => {
                let what = "reading: the server refuses a token that it has just given";
                Err(FetchError::new(Class::Unauthorized, what).at(&self.origin))
            }
        }
    }

    /// `None`: the token is no longer good, and forgotten.
    async fn attempt(&self, path: &str) -> Result<Option<Response>, FetchError> {
        let token = self.token().await?;
        let answer = self.send(Some(&token), Request::get(path)).await?;
        if answer.status != 403 {
            return Ok(Some(answer));
        }
        // 403 is "bad token" or "not this path": whether the token still lives tells.
        let lookup = Request::get("/v1/auth/token/lookup-self");
        if self.send(Some(&token), lookup).await?.status == 200 {
            let what = "the policy of the token does not allow this path (status 403)";
            return Err(FetchError::new(Class::Denied, what).at(&self.origin));
        }
        *self.session.lock().await = None;
        Ok(None)
    }

    async fn value(&self, reference: &VaultReference) -> Result<Fetched, FetchError> {
        let answer = self.get("data", reference).await?;
        let place = |error: FetchError| error.at(&self.origin);
        match answer.status {
            200 => {}
            404 if serde_json::from_slice::<Read<'_>>(&answer.body).is_ok() => {
                let what = "its current version is deleted: write a new one";
                return Err(place(FetchError::new(Class::Missing, what)));
            }
            404 => {
                let what = "there is no such secret, or the mount is no KV version 2";
                return Err(place(FetchError::new(Class::Missing, what)));
            }
            _ => return Err(place(failure(&answer, "reading"))),
        }
        let read: Read<'_> = serde_json::from_slice(&answer.body).map_err(|_| {
            let what = "reading: the answer is not that of a KV version 2 engine";
            place(FetchError::new(Class::Protocol, what))
        })?;
        let data = read.data.data.unwrap_or_default();
        let Some(raw) = data.get(&reference.key) else {
            let what = format!("the secret has no key {:?}", reference.key);
            return Err(place(FetchError::new(Class::Missing, what)));
        };
        let text: SecretText = serde_json::from_str(raw.get()).map_err(|_| {
            let what = format!("the value of the key {:?} is no string", reference.key);
            place(FetchError::new(Class::Invalid, what))
        })?;
        Ok(Fetched {
            value: Secret::copy_of(text.0.as_bytes())?,
            version: Some(read.data.metadata.version.to_string()),
        })
    }

    async fn version(&self, reference: &VaultReference) -> Result<Option<String>, FetchError> {
        let answer = self.get("metadata", reference).await?;
        if answer.status != 200 {
            return Err(failure(&answer, "looking for changes").at(&self.origin));
        }
        let current: Current =
            json(&answer.body, "looking for changes").map_err(|error| error.at(&self.origin))?;
        Ok(Some(current.data.current_version.to_string()))
    }
}

/// A missing token is not a missing secret.
fn unauthorized(mut error: FetchError) -> FetchError {
    if error.class == Class::Missing {
        error.class = Class::Unauthorized;
    }
    error
}

/// At two thirds of its life.
fn renew_at(lease: u64) -> Option<Instant> {
    (lease > 0).then(|| Instant::now() + Duration::from_secs(lease.min(86400 * 365)) * 2 / 3)
}

fn failure(answer: &Response, doing: &str) -> FetchError {
    match answer.status {
        412 => FetchError::new(
            Class::Unavailable,
            format!("{doing}: the server has not caught up yet (status 412)"),
        ),
        503 => FetchError::new(
            Class::Unavailable,
            format!("{doing}: the server is sealed or in maintenance (status 503)"),
        )
        .after(answer.retry_after),
        _ => refusal(answer, doing),
    }
}

impl Provider for VaultServer {
    fn renew(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut session = self.session.lock().await;
            if let Some(known) = &*session
                && replaced(&*self.credentials, &self.credential, &known.given).await
            {
                *session = None;
            }
        })
    }

    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>> {
        Box::pin(async move {
            let one = |reference: &'a Reference| -> Pending<'a, _> {
                Box::pin(async move {
                    let result = match reference {
                        Reference::Vault(vault) => self.value(vault).await,
                        _ => Err(foreign(reference)),
                    };
                    result.map_err(|error| error.at(&self.origin).of(reference))
                })
            };
            // One that hangs holds up no other.
            together(references.iter().map(one).collect()).await
        })
    }

    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>> {
        Box::pin(async move {
            let mut results: Results<Option<String>> = Vec::new();
            // Keys of one secret share its version.
            let mut known: BTreeMap<(&str, &str), Result<Option<String>, FetchError>> =
                BTreeMap::new();
            for reference in references {
                let Reference::Vault(vault) = reference else {
                    results.push(Err(foreign(reference)));
                    continue;
                };
                let result = match known.entry((&vault.mount, &vault.path)) {
                    Entry::Occupied(known) => known.get().clone(),
                    Entry::Vacant(new) => new.insert(self.version(vault).await).clone(),
                };
                results.push(result.map_err(|error| error.at(&self.origin).of(reference)));
            }
            results
        })
    }
}

/// Fuzz target: no bytes may panic what reads answers.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Login>(bytes);
    let _ = serde_json::from_slice::<Lookup>(bytes);
    let _ = serde_json::from_slice::<Current>(bytes);
    if let Ok(read) = serde_json::from_slice::<Read<'_>>(bytes) {
        for raw in read.data.data.unwrap_or_default().values() {
            let _ = serde_json::from_str::<SecretText>(raw.get());
        }
    }
}
