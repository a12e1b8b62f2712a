//! What the service learns from the fetcher of secrets: what to blot out of logs, and credentials
//! that have changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrets::Secret;
use secrets::refresh::{Client, Current, RefreshError, SOCKET};
use shipper::Service;
use shipper::http::Value;

/// The manifest of secrets; see larder-secrets.service.
const MANIFEST: &str = "/etc/larder/secrets.toml";
/// Time between two tries to reach the fetcher.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest wait for a value: the fetcher hands out none before all logs are read with its
/// fingerprints, and waits for its provider.
const PATIENCE: Duration = Duration::from_secs(30);
/// All credentials of the unit.
const NAMES: [&str; 8] = [
    "loki-url",
    "loki-username",
    "loki-password",
    "loki-token",
    "prom-remote-write-url",
    "prom-username",
    "prom-password",
    "prom-token",
];

/// Whether there is a fetcher on this machine. Without a manifest it does not start, and nobody answers
/// at its socket.
pub(super) fn is_there() -> bool {
    Path::new(SOCKET).exists() && Path::new(MANIFEST).exists()
}

/// The credentials of the unit: what the fetcher said last, else what systemd handed in at the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    /// `None`: there is none any more.
    fetched: BTreeMap<&'static str, Option<Arc<Secret>>>,
    /// Folder of the files from systemd.
    folder: Option<PathBuf>,
}

impl Credentials {
    /// Those of this process.
    pub(super) fn of_unit() -> Self {
        Self {
            fetched: BTreeMap::new(),
            folder: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
        }
    }

    /// A credential; one that is optional and absent arrives as an empty file.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        if let Some(fetched) = self.fetched.get(name) {
            let secret = fetched.as_ref().filter(|secret| !secret.is_empty())?;
            return Some(Value::Held(name.into(), Arc::clone(secret)));
        }
        let path = self.folder.as_ref()?.join(name);
        let some = path.metadata().is_ok_and(|file| file.len() > 0);
        some.then_some(Value::File(path))
    }

    /// Reads all of them anew. What cannot be had now stays as it is.
    pub(super) async fn refresh(&mut self) {
        if !is_there() {
            return;
        }
        let reading = self.read(Path::new(SOCKET));
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("credentials are not read anew: {error}"),
            Err(_) => log::warn!(
                "credentials are not read anew: no answer within {} s",
                PATIENCE.as_secs()
            ),
        }
    }

    async fn read(&mut self, socket: &Path) -> Result<(), RefreshError> {
        let mut client = Client::connect(socket).await?;
        for name in NAMES {
            match client.get(name).await {
                Ok(Current::Value(secret)) => {
                    self.fetched.insert(name, Some(Arc::new(secret)));
                }
                Ok(Current::Absent) => {
                    self.fetched.insert(name, None);
                }
                Ok(Current::Unavailable(why)) => log::warn!("credential {name}: {why}"),
                // The manifest does not give it to this unit: the file counts.
                Err(RefreshError::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Learns what to blot out; never returns.
pub(super) async fn blot(service: &Service) {
    let mut said = String::new();
    loop {
        if is_there()
            && let Err(error) = watch(service).await
        {
            let error = format!("cannot learn what to blot out of logs: {error}");
            if error != said {
                log::warn!("{error}");
                said = error;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn watch(service: &Service) -> Result<(), RefreshError> {
    let mut client = Client::connect(Path::new(SOCKET)).await?;
    client.watch().await?;
    loop {
        let known = client.fingerprints().await?;
        service.blot(&known.key, &known.fingerprints);
        client.acknowledge(known.number).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_wins_over_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("loki-password"), "old").unwrap();
        std::fs::write(folder.path().join("prom-password"), "").unwrap();
        let mut credentials = Credentials {
            folder: Some(folder.path().into()),
            ..Credentials::default()
        };
        let text = |credentials: &Credentials, name: &str| {
            credentials
                .get(name)
                .map(|value| value.text().unwrap().to_string())
        };
        assert_eq!(text(&credentials, "loki-password").unwrap(), "old");
        assert_eq!(text(&credentials, "prom-password"), None);
        assert_eq!(text(&credentials, "loki-token"), None);
        let new = Secret::copy_of(b"new\n").unwrap();
        credentials
            .fetched
            .insert("loki-password", Some(Arc::new(new)));
        assert_eq!(text(&credentials, "loki-password").unwrap(), "new");
        credentials.fetched.insert("loki-password", None);
        assert_eq!(text(&credentials, "loki-password"), None);
        assert_eq!(text(&Credentials::default(), "loki-password"), None);
    }
}
