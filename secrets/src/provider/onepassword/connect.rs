//! 1Password Connect, a server of one's own: the calls of its REST API (1.8) that read.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::text::SecretText;
use super::super::{json, refusal, together};
use super::{Backend, Details, Field, Item, Listed};
use crate::credentials::Credentials;
use crate::error::{Class, FetchError};
use crate::transport::{Origin, Pending, Request, Transport, escape};

/// A Connect server.
pub struct Connect {
    transport: Arc<dyn Transport>,
    credentials: Arc<dyn Credentials>,
    credential: String,
    origin: Origin,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vault {
    id: String,
    #[serde(default)]
    name: String,
    content_version: u64,
}

#[derive(Deserialize)]
struct Summary {
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    state: Option<String>,
}

#[derive(Deserialize)]
struct Full {
    #[serde(default)]
    sections: Vec<Section>,
    #[serde(default)]
    fields: Vec<FullField>,
}

#[derive(Deserialize)]
struct Section {
    id: String,
    #[serde(default)]
    label: String,
}

#[derive(Deserialize)]
struct SectionId {
    id: String,
}

#[derive(Deserialize)]
struct FullField {
    id: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    section: Option<SectionId>,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    value: Option<SecretText>,
}

impl Connect {
    /// A server, and the credential with the token for it.
    pub fn new(
        transport: Arc<dyn Transport>,
        credentials: Arc<dyn Credentials>,
        credential: String,
        origin: Origin,
    ) -> Self {
        Self {
            transport,
            credentials,
            credential,
            origin,
        }
    }

    /// The body of a successful GET.
    async fn get(&self, path: String, doing: &str) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let token = self
            .credentials
            .read(&self.credential)
            .await
            .map_err(|mut error| {
                if error.class == Class::Missing {
                    error.class = Class::Unauthorized;
                }
                error
            })?;
        let token = token
            .text()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| {
                let what = format!("the credential {} is no text", self.credential);
                FetchError::new(Class::Unauthorized, what)
            })?;
        let header = Zeroizing::new(format!("Bearer {token}"));
        let request = Request::get(path).header("authorization", header.as_str());
        let answer = self.transport.send(&self.origin, request).await?;
        match answer.status {
            200 => Ok(answer.body),
            _ => Err(refusal(&answer, doing).at(&self.origin)),
        }
    }
}

fn path(parts: &[&str]) -> String {
    let mut path = String::from("/v1");
    for part in parts {
        path.push('/');
        escape(part, &mut path);
    }
    path
}

impl Backend for Connect {
    fn place(&self) -> String {
        self.origin.to_string()
    }

    fn vaults(&self) -> Pending<'_, Result<Vec<Listed>, FetchError>> {
        Box::pin(async move {
            let doing = "listing the vaults";
            let body = self.get(path(&["vaults"]), doing).await?;
            let vaults: Vec<Vault> = json(&body, doing)?;
            let info = |vault: Vault| Listed {
                id: vault.id,
                name: Ok(vault.name),
                version: vault.content_version,
            };
            Ok(vaults.into_iter().map(info).collect())
        })
    }

    fn items<'a>(&'a self, vault: &'a str) -> Pending<'a, Result<Vec<Listed>, FetchError>> {
        Box::pin(async move {
            let doing = "listing the items of the vault";
            let body = self.get(path(&["vaults", vault, "items"]), doing).await?;
            let items: Vec<Summary> = json(&body, doing)?;
            let active =
                |item: &Summary| !matches!(item.state.as_deref(), Some("ARCHIVED" | "DELETED"));
            let info = |item: Summary| Listed {
                id: item.id,
                name: Ok(item.title),
                version: 0,
            };
            Ok(items.into_iter().filter(active).map(info).collect())
        })
    }

    fn details<'a>(
        &'a self,
        vault: &'a str,
        items: &'a [String],
    ) -> Pending<'a, Result<Details, FetchError>> {
        Box::pin(async move {
            let one = |id: &'a String| -> Pending<'a, _> {
                Box::pin(async move { (id.clone(), self.item(vault, id).await) })
            };
            let found = together(items.iter().map(one).collect()).await;
            let gone = |error: &FetchError| error.class == Class::Missing;
            Ok(found
                .into_iter()
                .filter(|(_, item)| !item.as_ref().is_err_and(gone))
                .collect())
        })
    }
}

impl Connect {
    async fn item(&self, vault: &str, id: &str) -> Result<Item, FetchError> {
        let doing = "reading the item";
        let body = self
            .get(path(&["vaults", vault, "items", id]), doing)
            .await?;
        let full: Full = json(&body, doing)?;
        let sections: HashMap<String, String> =
            full.sections.into_iter().map(|s| (s.id, s.label)).collect();
        let field = |field: FullField| Field {
            section: field.section.map(|section| {
                let label = sections.get(&section.id).cloned().unwrap_or_default();
                (section.id, label)
            }),
            id: field.id,
            label: field.label,
            value: field.value.unwrap_or_default(),
            one_time: field.kind == "OTP" || field.kind == "TOTP",
        };
        let fields = full.fields.into_iter().map(field).collect();
        Ok(Item { fields })
    }
}

/// Fuzz target: no bytes may panic what reads answers.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Vec<Vault>>(bytes);
    let _ = serde_json::from_slice::<Vec<Summary>>(bytes);
    let _ = serde_json::from_slice::<Full>(bytes);
}
