//! Where logs and metrics go: by credentials that come, go and change while the service runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::{Answer, Client, ClientSettings, Receiver};

/// A receiver. `None`: none is configured; an error: what is wrong with its configuration.
pub type Destination = Result<Option<ClientSettings>, String>;

/// Where both go.
#[derive(Clone, Debug)]
pub struct Receivers {
    /// Loki.
    pub logs: Destination,
    /// Prometheus's remote write.
    pub metrics: Destination,
}

/// A destination that may be replaced, and how often it was.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<(u64, Destination)>>);

impl Shared {
    pub(crate) fn new(destination: Destination) -> Self {
        Self(Arc::new(Mutex::new((1, destination))))
    }

    pub(crate) fn set(&self, destination: Destination) {
        let mut current = self.lock();
        *current = (current.0 + 1, destination);
    }

    /// Whether there is one, be it a wrong one.
    pub(crate) fn is_configured(&self) -> bool {
        !matches!(self.lock().1, Ok(None))
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Destination)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client of the destination as it is now.
#[derive(Debug)]
pub(crate) struct Current {
    shared: Shared,
    version: u64,
    client: Result<Option<Client>, String>,
}

impl Current {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared,
            version: 0,
            client: Ok(None),
        }
    }

    /// Whether there is a receiver; an error says what is wrong with it.
    pub(crate) fn ready(&mut self) -> Result<bool, String> {
        match self.client() {
            Ok(client) => Ok(client.is_some()),
            Err(error) => Err(error.clone()),
        }
    }

    fn client(&mut self) -> &mut Result<Option<Client>, String> {
        let current = self.shared.lock();
        if current.0 != self.version {
            self.version = current.0;
            self.client = match &current.1 {
                Ok(None) => Ok(None),
                Ok(Some(settings)) => Client::new(settings.clone())
                    .map(Some)
                    .map_err(|error| format!("cannot make a client: {error}")),
                Err(error) => Err(error.clone()),
            };
        }
        drop(current);
        &mut self.client
    }
}

impl Receiver for Current {
    fn push(&mut self, body: &[u8]) -> Answer {
        match self.client() {
            Ok(Some(client)) => client.post(body),
            Ok(None) => Answer::Failure("no receiver is configured".into()),
            Err(error) => Answer::Failure(error.clone()),
        }
    }

    fn push_second(&mut self, body: &[u8]) -> Option<(Answer, Option<u64>)> {
        match self.client() {
            Ok(Some(client)) => client.push_second(body),
            Ok(None) | Err(_) => None,
        }
    }
}
