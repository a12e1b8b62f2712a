//! The credentials of the service: read at its start from the folder that systemd made, later from
//! the refresh socket, because a unit that runs gets no new folder.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrets::Secret;
use secrets::refresh::{Client, Current};
use zeroize::Zeroizing;

/// Longest wait for the refresh socket.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest credential in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Where credentials are.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// `$CREDENTIALS_DIRECTORY`.
    pub folder: Option<PathBuf>,
    /// The refresh socket of the fetcher of secrets.
    pub socket: Option<PathBuf>,
}

/// A value, in memory that is locked, in no core dump, and wiped.
pub(crate) type Value = Arc<Secret>;

impl Credentials {
    /// What the folder has. `None`: no such credential.
    pub(crate) fn in_folder(&self, name: &str) -> std::io::Result<Option<Value>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let mut file = match std::fs::File::open(folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        if size > LARGEST {
            return Err(std::io::Error::new(
                ErrorKind::FileTooLarge,
                "larger than 1 MiB",
            ));
        }
        // Made large enough at once: a vector that grows leaves copies of the value behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 1));
        std::io::Read::read_to_end(&mut file, &mut bytes)?;
        // An optional secret that is missing is handed out empty.
        if bytes.is_empty() {
            return Ok(None);
        }
        let value = Secret::take(bytes).map_err(std::io::Error::other)?;
        Ok(Some(Arc::new(value)))
    }

    /// What there is now: `None`, nothing new is to be had (keep what there is); `Some(None)`, the
    /// credential is gone or was never given.
    pub(crate) async fn current(&self, name: &str) -> Option<Option<Value>> {
        let asked = async {
            let mut client = Client::connect(self.socket.as_deref()?).await.ok()?;
            client.get(name).await.ok()
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Some(Current::Value(value))) => Some(Some(Arc::new(value))),
            Ok(Some(Current::Absent)) => Some(None),
            Ok(Some(Current::Unavailable(_))) => None,
            // No fetcher, or one that does not give us this: the folder is all there is.
            Ok(None) | Err(_) => self.in_folder(name).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_fetcher_the_folder_counts() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials {
            folder: Some(folder.path().into()),
            socket: Some(folder.path().join("none.sock")),
        };
        assert!(credentials.in_folder("jwt-keys").unwrap().is_none());
        assert!(matches!(credentials.current("jwt-keys").await, Some(None)));
        std::fs::write(folder.path().join("jwt-keys"), "value").unwrap();
        let value = credentials.in_folder("jwt-keys").unwrap().unwrap();
        assert_eq!(value.expose(), b"value");
        let current = credentials.current("jwt-keys").await.unwrap().unwrap();
        assert_eq!(current.expose(), b"value");
        std::fs::write(folder.path().join("empty"), "").unwrap();
        assert!(credentials.in_folder("empty").unwrap().is_none());
        assert!(Credentials::default().in_folder("x").unwrap().is_none());
    }
}
