//! Where values come from: one file a provider, behind one trait that tests replace.

mod age;
mod credential;
mod onepassword;
mod text;
mod vault;

use std::sync::Arc;
use std::task::Poll;

use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::credentials::Credentials;
use crate::error::{Class, FetchError};
use crate::manifest::{self, ProviderKind};
use crate::reference::Reference;
use crate::secret::Secret;
use crate::transport::{Pending, Response, Transport};

pub use age::AgeFiles;
pub use credential::MachineCredentials;
pub use onepassword::{Connect, OnePassword, ServiceAccount};
pub use vault::VaultServer;

/// A value and what tells it from the one before.
#[derive(Debug)]
pub struct Fetched {
    /// The value.
    pub value: Secret,
    /// Changes when the value may have changed. Not secret. `None`: only fetching tells.
    pub version: Option<String>,
}

/// What a provider says of each reference, in the order in which they were given.
pub type Results<T> = Vec<Result<T, FetchError>>;

/// Resolves references, each on its own: a bad one does not stop the others.
pub trait Provider: Send + Sync {
    /// Fetches values. All references are of this provider's scheme.
    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>>;

    /// Versions only, with as few requests as the provider allows.
    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>>;

    /// A person says that the token may be another now: a session that another one began ends.
    fn renew(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}

/// Whether the credential holds another value than this one. What cannot be read counts as the same:
/// nothing that works is given up for it.
async fn replaced(credentials: &dyn Credentials, name: &str, known: &Secret) -> bool {
    match credentials.read(name).await {
        Ok(now) => !now.same(known),
        Err(_) => false,
    }
}

/// Makes the provider that a manifest describes.
pub fn build(
    provider: &manifest::Provider,
    transport: Arc<dyn Transport>,
    credentials: Arc<dyn Credentials>,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Provider> {
    let token = provider.token.clone();
    match &provider.kind {
        ProviderKind::ServiceAccount { hosts } => {
            let account = ServiceAccount::new(transport, credentials, token, hosts.clone());
            Arc::new(OnePassword::new(account, clock))
        }
        ProviderKind::Connect { origin } => {
            let connect = Connect::new(transport, credentials, token, origin.clone());
            Arc::new(OnePassword::new(connect, clock))
        }
        ProviderKind::Vault {
            origin,
            namespace,
            login,
        } => Arc::new(VaultServer::new(
            transport,
            credentials,
            token,
            origin.clone(),
            namespace.clone(),
            login.clone(),
        )),
        ProviderKind::Age { folder } => Arc::new(AgeFiles::new(folder.clone(), credentials, token)),
        ProviderKind::Credential => Arc::new(MachineCredentials::new(credentials)),
    }
}

/// Runs all at once, on this task. Results are in the order of the work.
async fn together<T>(work: Vec<Pending<'_, T>>) -> Vec<T> {
    let mut work: Vec<_> = work.into_iter().map(|work| (work, None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (work, result) in work.iter_mut().filter(|(_, result)| result.is_none()) {
            match work.as_mut().poll(context) {
                Poll::Ready(value) => *result = Some(value),
                Poll::Pending => pending = true,
            }
        }
        match pending {
            true => Poll::Pending,
            false => Poll::Ready(
                work.iter_mut()
                    .filter_map(|(_, result)| result.take())
                    .collect(),
            ),
        }
    })
    .await
}

/// The same error for every reference.
fn all<T>(references: &[Reference], error: &FetchError) -> Results<T> {
    let errors = references.iter();
    errors
        .map(|reference| Err(error.clone().of(reference)))
        .collect()
}

/// A reference of another provider, which the manifest does not send here.
fn foreign(reference: &Reference) -> FetchError {
    FetchError::new(Class::Invalid, "the reference is not of this provider").of(reference)
}

/// What a status that is no success means, for any server.
fn refusal(response: &Response, doing: &str) -> FetchError {
    let status = response.status;
    let (class, what) = match status {
        401 => (Class::Unauthorized, "the token is refused"),
        403 => (Class::Denied, "the token may not do this"),
        404 => (Class::Missing, "there is no such thing"),
        429 => (Class::RateLimited, "there were too many requests"),
        500..=599 => (Class::Unavailable, "the server has a problem"),
        _ => (Class::Protocol, "the answer is not one that is known"),
    };
    FetchError::new(class, format!("{doing}: {what} (status {status})")).after(response.retry_after)
}

/// Reads a body as JSON. What is in it is not told.
fn json<T: DeserializeOwned>(body: &[u8], doing: &str) -> Result<T, FetchError> {
    serde_json::from_slice(body).map_err(|error| {
        // The library's words may quote the text; where it stopped is safe.
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => "is not what the protocol says",
            _ => "is no JSON",
        };
        FetchError::new(
            Class::Protocol,
            format!("{doing}: the answer {what} (line {line}, column {column})"),
        )
    })
}

/// Fuzz target: no bytes may panic what reads tokens, keys and files.
pub(crate) fn fuzz(bytes: &[u8]) {
    age::fuzz(bytes);
    onepassword::fuzz(bytes);
    vault::fuzz(bytes);
}
