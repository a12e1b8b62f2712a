//! What several tests need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secret_doubles::Server;
use secrets::clock::{Clock, System};
use secrets::credentials::Credentials;
use secrets::manifest::{Manifest, Provider as Settings};
use secrets::provider::{self, Fetched, Provider};
use secrets::reference::{Reference, Scheme};
use secrets::transport::{Https, Limits, Pending, Transport};
use secrets::{Class, FetchError, Secret};

/// Credentials that a test gives.
#[derive(Clone, Default)]
pub(crate) struct Given(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Given {
    pub(crate) fn token(token: impl Into<Vec<u8>>) -> Self {
        let given = Self::default();
        given.set(secrets::manifest::TOKEN, token);
        given
    }

    pub(crate) fn set(&self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(name.into(), value.into());
    }
}

impl Credentials for Given {
    fn read<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Secret, FetchError>> {
        Box::pin(async move {
            match self.0.lock().unwrap().get(name) {
                Some(value) => Ok(Secret::copy_of(value)?),
                None => Err(FetchError::new(
                    Class::Missing,
                    format!("no credential {name}"),
                )),
            }
        })
    }
}

/// Limits with which tests of failures are over soon.
pub(crate) const SHORT: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(2),
    body: 64 * 1024,
};

/// A transport that trusts a double.
pub(crate) fn trusting(server: &Server, limits: Limits) -> Arc<dyn Transport> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.authority()).unwrap();
    Arc::new(Https::new(Some(file.path()), limits).unwrap())
}

/// The settings of a provider, by the text of its section.
pub(crate) fn settings(scheme: Scheme, section: &str) -> Settings {
    let text = format!("[providers.{section}");
    let manifest = Manifest::parse(&text, "manifest.toml".as_ref()).unwrap();
    manifest.providers[&scheme].clone()
}

/// A provider that speaks with a double.
pub(crate) fn connect_to(
    server: &Server,
    settings: &Settings,
    given: &Given,
    limits: Limits,
) -> Arc<dyn Provider> {
    connect_at(server, settings, given, limits, Arc::new(System))
}

pub(crate) fn connect_at(
    server: &Server,
    settings: &Settings,
    given: &Given,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Provider> {
    let transport = trusting(server, limits);
    provider::build(settings, transport, Arc::new(given.clone()), clock)
}

/// Parses references.
pub(crate) fn references(texts: &[&str]) -> Vec<Reference> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Fetches; values as text, errors in their words, one a line, the port of the server as PORT.
pub(crate) async fn resolve(
    provider: &dyn Provider,
    texts: &[&str],
) -> Vec<Result<String, FetchError>> {
    let references = references(texts);
    let text = |fetched: Fetched| String::from_utf8(fetched.value.expose().to_vec()).unwrap();
    provider
        .fetch(&references)
        .await
        .into_iter()
        .map(|result| result.map(text))
        .collect()
}

/// The words of all errors, with the port of the server as PORT.
pub(crate) fn told(server: &Server, results: &[Result<String, FetchError>]) -> String {
    let mut told = String::new();
    for result in results {
        match result {
            Ok(_) => told += "a value\n",
            Err(error) => told += &format!("{error}\n"),
        }
    }
    told.replace(&server.address().port().to_string(), "PORT")
}

/// The class of one failure.
pub(crate) async fn class(provider: &dyn Provider, reference: &str) -> Class {
    resolve(provider, &[reference])
        .await
        .remove(0)
        .unwrap_err()
        .class
}
