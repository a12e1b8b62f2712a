//! From what the manifest says of providers to providers that work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Source;
use crate::budget::{Budget, Budgeted};
use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::error::FetchError;
use crate::manifest::{Manifest, Provider as Settings};
use crate::provider::{self, Fetched, Provider, Results};
use crate::reference::{Reference, Scheme};
use crate::transport::{AfterClock, Https, Limits, Pending, Synchronised, Transport};

/// Makes the providers that the secrets of a manifest need. Budgets are kept in the folder, each in
/// `budget-SCHEME`. A provider that cannot be made fails for its own references only.
pub fn sources(
    manifest: &Manifest,
    folder: &Path,
    credentials: &Arc<dyn Credentials>,
    clock: &Arc<dyn Clock>,
    synchronised: &Synchronised,
) -> BTreeMap<Scheme, Source> {
    let mut sources = BTreeMap::new();
    for entry in manifest.secrets.values() {
        let scheme = entry.reference.scheme();
        let Some(settings) = manifest.providers.get(&scheme) else {
            continue;
        };
        sources.entry(scheme).or_insert_with(|| {
            let budget = settings.kind.remote().then(|| {
                let path = folder.join(format!("budget-{scheme}"));
                Arc::new(Budget::open(settings.budget, Some(path), clock.clone()))
            });
            let provider = match transport(settings, budget.clone(), synchronised) {
                Ok(transport) => {
                    provider::build(settings, transport, credentials.clone(), clock.clone())
                }
                Err(error) => {
                    log::error!("{scheme}:// cannot be used: {error}");
                    Arc::new(Broken(error))
                }
            };
            Source { provider, budget }
        });
    }
    sources
}

fn transport(
    settings: &Settings,
    budget: Option<Arc<Budget>>,
    synchronised: &Synchronised,
) -> Result<Arc<dyn Transport>, FetchError> {
    let Some(budget) = budget else {
        return Ok(Arc::new(Unused));
    };
    let transport = Https::new(settings.ca.as_deref(), Limits::default())?;
    let transport = Budgeted { transport, budget };
    Ok(Arc::new(AfterClock::new(transport, synchronised.clone())))
}

/// The transport of providers that are on the machine itself.
struct Unused;

impl Transport for Unused {
    fn send<'a>(
        &'a self,
        origin: &'a crate::transport::Origin,
        _: crate::transport::Request,
    ) -> Pending<'a, Result<crate::transport::Response, FetchError>> {
        let error = FetchError::new(crate::Class::Local, "this provider sends no requests");
        Box::pin(async move { Err(error.at(origin)) })
    }
}

/// A provider that could not be made.
struct Broken(FetchError);

impl Broken {
    fn all<T>(&self, references: &[Reference]) -> Results<T> {
        let fail = |reference| Err(self.0.clone().of(reference));
        references.iter().map(fail).collect()
    }
}

impl Provider for Broken {
    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>> {
        Box::pin(async move { self.all(references) })
    }

    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>> {
        Box::pin(async move { self.all(references) })
    }
}
