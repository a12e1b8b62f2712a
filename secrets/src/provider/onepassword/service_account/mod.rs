//! 1Password by a service account token (`ops_…`).
//!
//! **This is not a documented public API.** The protocol is as seen from the vendor's own clients,
//! and what does not look like it is refused instead of guessed. Connect is the supported way.

mod envelope;
mod keys;
mod session;
mod srp;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::text::{MaybeText, SecretText};
use super::super::{json, replaced};
use super::{Backend, Field, Item, Listed};
use crate::credentials::Credentials;
use crate::error::{Class, FetchError};
use crate::secret::Secret;
use crate::transport::{Pending, Request, Transport};
use envelope::Envelope;
use keys::{Key, Keyset};
use session::Session;
use token::Token;

/// A service account.
pub struct ServiceAccount {
    transport: Arc<dyn Transport>,
    credentials: Arc<dyn Credentials>,
    credential: String,
    hosts: Vec<String>,
    state: tokio::sync::Mutex<Option<State>>,
}

/// A login and what it opened.
struct State {
    /// What the credential held.
    given: Secret,
    token: Token,
    session: Session,
    keysets: Vec<Keyset>,
    /// By id of the vault.
    vaults: HashMap<String, Key>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vault {
    uuid: String,
    content_version: u64,
    enc_attrs: Envelope,
    combined_access: Access,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    enc_vault_key: Envelope,
    encrypted_by: String,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Overviews {
    batch_complete: bool,
    items: Vec<OverviewItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OverviewItem {
    uuid: String,
    #[serde(default)]
    trashed: Option<String>,
    encrypted_by: String,
    enc_overview: Envelope,
}

#[derive(Deserialize)]
struct Overview {
    #[serde(default)]
    title: String,
}

#[derive(Deserialize)]
struct Batch {
    items: Vec<BatchItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchItem {
    uuid: String,
    encrypted_by: String,
    enc_details: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(default)]
    fields: Vec<LoginField>,
    #[serde(default)]
    sections: Vec<Section>,
    #[serde(default)]
    notes_plain: Option<SecretText>,
    #[serde(default)]
    password: Option<SecretText>,
}

/// A field of a login's form.
#[derive(Deserialize)]
struct LoginField {
    #[serde(default)]
    designation: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    value: Option<SecretText>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    name: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    fields: Vec<SectionField>,
}

#[derive(Deserialize)]
struct SectionField {
    #[serde(default)]
    n: String,
    #[serde(default)]
    t: String,
    /// Text, or for dates and addresses something else, which nobody refers to.
    #[serde(default)]
    v: MaybeText,
}

impl ServiceAccount {
    /// An account, by the credential that holds its token. A token may name 1Password's own hosts
    /// and these.
    pub fn new(
        transport: Arc<dyn Transport>,
        credentials: Arc<dyn Credentials>,
        credential: String,
        hosts: Vec<String>,
    ) -> Self {
        Self {
            transport,
            credentials,
            credential,
            hosts,
            state: tokio::sync::Mutex::new(None),
        }
    }

    async fn log_in(&self) -> Result<State, FetchError> {
        let secret = self
            .credentials
            .read(&self.credential)
            .await
            .map_err(|mut error| {
                if error.class == Class::Missing {
                    error.class = Class::Unauthorized;
                }
                error
            })?;
        let fail = |reason: &str| {
            let what = format!("the credential {}: {reason}", self.credential);
            FetchError::new(Class::Unauthorized, what)
        };
        let text = secret.text().ok_or_else(|| fail("the token is no text"))?;
        let token = Token::parse(text, &self.hosts).map_err(|reason| fail(&reason))?;
        let session = Session::start(&*self.transport, &token).await?;
        Ok(State {
            given: secret,
            token,
            session,
            keysets: Vec::new(),
            vaults: HashMap::new(),
        })
    }

    /// Sends a request within the session; logs in first, and once more if the session is over.
    async fn call(
        &self,
        state: &mut Option<State>,
        request: impl Fn() -> Request,
        doing: &str,
    ) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        if let Some(known) = state {
            let answer = known.session.call(&*self.transport, request(), doing).await;
            match answer {
                Err(error) if error.class == Class::Unauthorized => *state = None,
                other => return other,
            }
        }
        let known = state.insert(self.log_in().await?);
        known.session.call(&*self.transport, request(), doing).await
    }

    /// The vaults, with their keys opened.
    async fn list(&self, state: &mut Option<State>) -> Result<Vec<Listed>, FetchError> {
        let doing = "listing the vaults";
        let request = || Request::get("/api/v1/vaults?attrs=combined-access");
        let body = self.call(state, request, doing).await?;
        let vaults: Vec<Vault> = json(&body, doing)?;
        let mut list = Vec::new();
        for vault in vaults {
            // One that cannot be opened stops only who means it.
            let name = self.vault_key(state, &vault).await.and_then(|key| {
                let doing = "opening the name of a vault";
                let plain = vault.enc_attrs.open(key, doing)?;
                let attributes: Attributes = json(&plain, doing)?;
                Ok(attributes.name)
            });
            list.push(Listed {
                id: vault.uuid,
                name,
                version: vault.content_version,
            });
        }
        Ok(list)
    }

    async fn vault_key<'a>(
        &self,
        state: &'a mut Option<State>,
        vault: &Vault,
    ) -> Result<&'a Key, FetchError> {
        let known = state
            .as_ref()
            .is_some_and(|state| state.vaults.contains_key(&vault.uuid));
        if !known {
            if state.as_ref().is_none_or(|state| state.keysets.is_empty()) {
                let doing = "reading the keysets";
                let request = || Request::get("/api/v2/account/keysets");
                let body = self.call(state, request, doing).await?;
                if let Some(state) = state.as_mut() {
                    state.keysets = keys::open_keysets(&body, &state.token.muk)?;
                }
            }
            if let Some(state) = state.as_mut() {
                let access = &vault.combined_access;
                let keyset = state
                    .keysets
                    .iter()
                    .find(|set| set.id == access.encrypted_by);
                let keyset = keyset.ok_or_else(|| {
                    let what =
                        "a vault key is encrypted by a keyset that the account does not have";
                    FetchError::new(Class::Protocol, what)
                })?;
                let key = keyset.open_key(&access.enc_vault_key)?;
                state.vaults.insert(vault.uuid.clone(), key);
            }
        }
        state
            .as_ref()
            .and_then(|state| state.vaults.get(&vault.uuid))
            .ok_or_else(|| FetchError::new(Class::Protocol, "the session ended meanwhile"))
    }
}

/// The key of a vault whose list was read before.
fn known_key<'a>(
    state: &'a Option<State>,
    vault: &str,
    encrypted_by: &str,
) -> Result<&'a Key, FetchError> {
    if encrypted_by != vault {
        let what = "an item is encrypted by another key than its vault's";
        return Err(FetchError::new(Class::Protocol, what));
    }
    state
        .as_ref()
        .and_then(|state| state.vaults.get(vault))
        // A new session has none until the vaults are listed again.
        .ok_or_else(|| FetchError::new(Class::Unavailable, "the session ended meanwhile"))
}

impl Backend for ServiceAccount {
    fn place(&self) -> String {
        // The host is in the token; it is named once a session stands.
        match self.state.try_lock().ok().as_deref() {
            Some(Some(state)) => state.token.origin.to_string(),
            _ => "1Password service account".into(),
        }
    }

    fn renew(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            if let Some(known) = &*state
                && replaced(&*self.credentials, &self.credential, &known.given).await
            {
                *state = None;
            }
        })
    }

    fn vaults(&self) -> Pending<'_, Result<Vec<Listed>, FetchError>> {
        Box::pin(async move { self.list(&mut *self.state.lock().await).await })
    }

    fn items<'a>(&'a self, vault: &'a str) -> Pending<'a, Result<Vec<Listed>, FetchError>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            let doing = "listing the items of the vault";
            let request = || Request::get(format!("/api/v1/vault/{vault}/items/overviews"));
            let body = self.call(&mut state, request, doing).await?;
            let overviews: Overviews = json(&body, doing)?;
            if !overviews.batch_complete {
                let what = "the list of items comes in parts, which is not supported";
                return Err(FetchError::new(Class::Protocol, what));
            }
            let mut items = Vec::new();
            for item in overviews.items {
                if item
                    .trashed
                    .as_deref()
                    .is_some_and(|trashed| trashed != "N")
                {
                    continue;
                }
                let name = known_key(&state, vault, &item.encrypted_by).and_then(|key| {
                    let overview: Overview = json(&item.enc_overview.open(key, doing)?, doing)?;
                    Ok(overview.title)
                });
                items.push(Listed {
                    id: item.uuid,
                    name,
                    version: 0,
                });
            }
            Ok(items)
        })
    }

    fn details<'a>(
        &'a self,
        vault: &'a str,
        items: &'a [String],
    ) -> Pending<'a, Result<super::Details, FetchError>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            let doing = "reading the items";
            let body = serde_json::json!({ "itemUuids": items })
                .to_string()
                .into_bytes();
            let path = format!("/api/v3/vault/{vault}/items/batch");
            let request = || Request::with_body(http::Method::POST, &path, body.clone());
            let body = self.call(&mut state, request, doing).await?;
            let batch: Batch = json(&body, doing)?;
            let mut found = HashMap::new();
            for item in batch.items {
                let read = known_key(&state, vault, &item.encrypted_by).and_then(|key| {
                    let details: Details = json(&item.enc_details.open(key, doing)?, doing)?;
                    Ok(Item::from(details))
                });
                found.insert(item.uuid, read);
            }
            Ok(found)
        })
    }
}

impl From<Details> for Item {
    fn from(details: Details) -> Self {
        let mut fields = Vec::new();
        for (name, value) in [
            ("notesPlain", details.notes_plain),
            ("password", details.password),
        ] {
            if let Some(value) = value {
                fields.push(Field {
                    id: name.into(),
                    label: name.into(),
                    value,
                    ..Field::default()
                });
            }
        }
        for field in details.fields {
            let designation = field
                .designation
                .filter(|designation| !designation.is_empty());
            let label = field.name.unwrap_or_default();
            fields.push(Field {
                id: designation.clone().unwrap_or_else(|| label.clone()),
                // References go by the designation, which is what the application shows.
                label: designation.unwrap_or(label),
                value: field.value.unwrap_or_default(),
                ..Field::default()
            });
        }
        for section in details.sections {
            // Fields that show in no section are in one without a name.
            let place = match (section.name.as_str(), section.title) {
                ("", None) => None,
                ("", Some(title)) if title.is_empty() => None,
                (name, title) => Some((name.to_owned(), title.unwrap_or_default())),
            };
            for field in section.fields {
                let MaybeText(Some(value)) = field.v else {
                    continue;
                };
                fields.push(Field {
                    one_time: field.n.starts_with("TOTP_"),
                    id: field.n,
                    label: field.t,
                    section: place.clone(),
                    value,
                });
            }
        }
        Self { fields }
    }
}

/// Fuzz target: no bytes may panic what reads tokens and what is inside of envelopes.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = Token::parse(&String::from_utf8_lossy(bytes), &[]);
    // What is inside, whatever its wrapping.
    let wrapped = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let _ = Token::parse(&format!("ops_{wrapped}"), &[]);
    let _ = serde_json::from_slice::<Vec<Vault>>(bytes);
    let _ = serde_json::from_slice::<Overviews>(bytes);
    let _ = serde_json::from_slice::<Batch>(bytes);
    if let Ok(details) = serde_json::from_slice::<Details>(bytes) {
        let _ = Item::from(details);
    }
    keys::fuzz(bytes);
}
