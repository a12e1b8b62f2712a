//! System credentials as secrets of their own: what is put into the machine once.

use std::sync::Arc;

use super::{Fetched, Provider, Results, foreign};
use crate::credentials::Credentials;
use crate::reference::Reference;
use crate::transport::Pending;

/// Gives system credentials.
pub struct MachineCredentials {
    credentials: Arc<dyn Credentials>,
}

impl MachineCredentials {
    /// Reads them from there.
    pub fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials }
    }
}

impl Provider for MachineCredentials {
    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>> {
        Box::pin(async move {
            let mut results = Vec::new();
            for reference in references {
                let Reference::Credential(credential) = reference else {
                    results.push(Err(foreign(reference)));
                    continue;
                };
                let value = self.credentials.read(&credential.name).await;
                results.push(match value {
                    Ok(value) => Ok(Fetched {
                        value,
                        version: None,
                    }),
                    Err(error) => Err(error.of(reference)),
                });
            }
            results
        })
    }

    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>> {
        Box::pin(async move { references.iter().map(|_| Ok(None)).collect() })
    }
}
