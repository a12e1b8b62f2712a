//! 1Password: how references are resolved, whichever way the items come.

mod connect;
mod item;
mod otp;
mod service_account;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Fetched, Provider, Results, all, foreign};
use crate::clock::Clock;
use crate::error::{Class, FetchError};
use crate::reference::{OnePasswordReference, Reference};
use crate::secret::Secret;
use crate::transport::Pending;

pub use connect::Connect;
pub use service_account::ServiceAccount;

pub(super) use item::{Field, Item};

/// A vault or item of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    id: String,
    /// Its name or title, or why that cannot be read.
    name: Result<String, FetchError>,
    /// Of a vault: counts changes of its items.
    version: u64,
}

/// Items with their fields, or why one cannot be read, by id.
pub(super) type Details = HashMap<String, Result<Item, FetchError>>;

/// A way to the items.
pub trait Backend: Send + Sync {
    /// Whom it asks, for messages.
    fn place(&self) -> String;
    /// All vaults: one request, once a session stands.
    fn vaults(&self) -> Pending<'_, Result<Vec<Listed>, FetchError>>;
    /// The items of a vault that are neither archived nor in the trash.
    fn items<'a>(&'a self, vault: &'a str) -> Pending<'a, Result<Vec<Listed>, FetchError>>;
    /// Items with their fields, by id. What is gone meanwhile is left out.
    fn details<'a>(
        &'a self,
        vault: &'a str,
        items: &'a [String],
    ) -> Pending<'a, Result<Details, FetchError>>;
    /// As [`Provider::renew`].
    fn renew(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}

/// 1Password over one of its backends.
pub struct OnePassword<B> {
    backend: B,
    clock: Arc<dyn Clock>,
}

impl<B: Backend> OnePassword<B> {
    /// Resolves references through a backend; the clock is for one-time codes.
    pub fn new(backend: B, clock: Arc<dyn Clock>) -> Self {
        Self { backend, clock }
    }

    /// One vault: all references into it, with the requests of one.
    async fn fetch_vault(
        &self,
        vault: &Listed,
        references: &[&OnePasswordReference],
    ) -> Result<Vec<Result<Fetched, FetchError>>, FetchError> {
        let items = self.backend.items(&vault.id).await?;
        let found: Vec<Result<String, FetchError>> = references
            .iter()
            .map(|reference| {
                let what = format!(
                    "item {:?} in the vault {:?}",
                    reference.item, reference.vault
                );
                one(&reference.item, &items, &what).map(|item| item.id.clone())
            })
            .collect();
        let wanted: BTreeSet<String> = found.iter().flatten().cloned().collect();
        let wanted: Vec<String> = wanted.into_iter().collect();
        let details = match wanted.is_empty() {
            true => HashMap::new(),
            false => self.backend.details(&vault.id, &wanted).await?,
        };
        let version = vault.version.to_string();
        let resolve = |(id, reference): (Result<String, FetchError>, &&OnePasswordReference)| {
            let id = id?;
            let item = match details.get(&id) {
                Some(item) => item.as_ref().map_err(Clone::clone)?,
                None => {
                    let what = format!("the item {:?} is gone", reference.item);
                    return Err(FetchError::new(Class::Missing, what));
                }
            };
            let text = item.value(reference, self.clock.now())?;
            Ok(Fetched {
                value: Secret::copy_of(text.as_bytes())?,
                version: Some(version.clone()),
            })
        };
        Ok(found.into_iter().zip(references).map(resolve).collect())
    }
}

/// The one that a reference means: by id, or by name without regard to case.
fn one<'a>(wanted: &str, list: &'a [Listed], what: &str) -> Result<&'a Listed, FetchError> {
    let named = |name: &String| name.to_lowercase() == wanted.to_lowercase();
    let matches: Vec<&Listed> = list
        .iter()
        .filter(|one| one.id == wanted || one.name.as_ref().is_ok_and(named))
        .collect();
    match matches[..] {
        [one] => Ok(one),
        // It may be the one whose name cannot be read, so it is not known to be missing.
        [] => match list.iter().find_map(|one| one.name.as_ref().err()) {
            Some(error) => Err(error.clone()),
            None => Err(FetchError::new(
                Class::Missing,
                format!("there is no {what}, or the token may not see it"),
            )),
        },
        _ => Err(FetchError::new(
            Class::Ambiguous,
            format!("there are {} of {what}: use the id", matches.len()),
        )),
    }
}

fn find_vault<'a>(
    vaults: &'a [Listed],
    reference: &OnePasswordReference,
) -> Result<&'a Listed, FetchError> {
    one(
        &reference.vault,
        vaults,
        &format!("vault {:?}", reference.vault),
    )
}

impl<B: Backend> Provider for OnePassword<B> {
    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>> {
        Box::pin(async move {
            let vaults = match self.backend.vaults().await {
                Ok(vaults) => vaults,
                Err(error) => return all(references, &error.at(self.backend.place())),
            };
            // A service account knows its host only now.
            let place = self.backend.place();
            let mut results: Vec<Option<Result<Fetched, FetchError>>> = Vec::new();
            let mut by_vault: BTreeMap<&str, (&Listed, Vec<usize>)> = BTreeMap::new();
            for (index, reference) in references.iter().enumerate() {
                let found = match reference {
                    Reference::OnePassword(reference) => find_vault(&vaults, reference),
                    _ => Err(foreign(reference)),
                };
                results.push(match found {
                    Ok(vault) => {
                        let group = by_vault.entry(&vault.id).or_insert((vault, Vec::new()));
                        group.1.push(index);
                        None
                    }
                    Err(error) => Some(Err(error)),
                });
            }
            for (vault, indices) in by_vault.into_values() {
                let group: Vec<&OnePasswordReference> = indices
                    .iter()
                    .filter_map(|index| match &references[*index] {
                        Reference::OnePassword(reference) => Some(reference),
                        _ => None,
                    })
                    .collect();
                match self.fetch_vault(vault, &group).await {
                    Ok(values) => {
                        for (index, value) in indices.iter().zip(values) {
                            results[*index] = Some(value);
                        }
                    }
                    Err(error) => {
                        for index in indices {
                            results[index] = Some(Err(error.clone()));
                        }
                    }
                }
            }
            let lost = || {
                Err(FetchError::new(
                    Class::Local,
                    "the reference was not resolved",
                ))
            };
            results
                .into_iter()
                .zip(references)
                .map(|(result, reference)| {
                    let result = result.unwrap_or_else(lost);
                    result.map_err(|error| error.at(&place).of(reference))
                })
                .collect()
        })
    }

    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>> {
        Box::pin(async move {
            let vaults = match self.backend.vaults().await {
                Ok(vaults) => vaults,
                Err(error) => return all(references, &error.at(self.backend.place())),
            };
            // A service account knows its host only now.
            let place = self.backend.place();
            let version = |reference: &Reference| match reference {
                Reference::OnePassword(op) => find_vault(&vaults, op)
                    .map(|vault| Some(vault.version.to_string()))
                    .map_err(|error| error.at(&place).of(reference)),
                _ => Err(foreign(reference)),
            };
            references.iter().map(version).collect()
        })
    }

    fn renew(&self) -> Pending<'_, ()> {
        self.backend.renew()
    }
}

/// Fuzz target: no bytes may panic what reads tokens, one-time secrets and answers.
pub(super) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = otp::code(&text, std::time::Duration::from_secs(1_800_000_000));
    service_account::fuzz(bytes);
    connect::fuzz(bytes);
}
