//! Age files that the image carries: the provider that needs no network. The key is a system
//! credential, as `age-keygen` writes it.

mod format;
mod identity;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::text::SecretText;
use super::{Fetched, Provider, Results, all, foreign};
use crate::credentials::Credentials;
use crate::error::{Class, FetchError};
use crate::reference::{AgeReference, Reference};
use crate::secret::{LARGEST, Secret};
use crate::transport::Pending;
use identity::Identity;

pub(super) use identity::parse as parse_identities;

/// Opens age files of a folder.
pub struct AgeFiles {
    folder: PathBuf,
    credentials: Arc<dyn Credentials>,
    credential: String,
}

impl AgeFiles {
    /// A folder, and the credential with the key for its files.
    pub fn new(folder: PathBuf, credentials: Arc<dyn Credentials>, credential: String) -> Self {
        Self {
            folder,
            credentials,
            credential,
        }
    }

    async fn identities(&self) -> Result<Vec<Identity>, FetchError> {
        let key = self
            .credentials
            .read(&self.credential)
            .await
            .map_err(|mut error| {
                if error.class == Class::Missing {
                    error.class = Class::Unauthorized;
                }
                error
            })?;
        let fail = |reason: String| {
            let what = format!("the credential {}: {reason}", self.credential);
            FetchError::new(Class::Unauthorized, what)
        };
        let text = key.text().ok_or_else(|| fail("it is no text".into()))?;
        identity::parse(text).map_err(fail)
    }

    /// The plain text of a file.
    fn open(&self, identities: &[Identity], file: &str) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let path = self.folder.join(file);
        let fail = |class, what: String| FetchError::new(class, what).at(path.display());
        let sealed = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > 2 * LARGEST as u64 => {
                let what = format!("the file is larger than {} bytes", 2 * LARGEST);
                return Err(fail(Class::TooLarge, what));
            }
            Ok(_) => std::fs::read(&path),
            Err(error) => Err(error),
        };
        let sealed = sealed.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => fail(Class::Missing, "there is no such file".into()),
            _ => fail(Class::Local, format!("cannot read it: {error}")),
        })?;
        decrypt(&sealed, identities).map_err(|(class, reason)| fail(class, reason))
    }

    fn value(&self, plain: &[u8], reference: &AgeReference) -> Result<Secret, FetchError> {
        let path = self.folder.join(&reference.file);
        let fail = |class, what: String| FetchError::new(class, what).at(path.display());
        let Some(name) = &reference.name else {
            return Ok(Secret::copy_of(plain)?);
        };
        // The library's words may quote values.
        let table: BTreeMap<String, SecretText> = std::str::from_utf8(plain)
            .ok()
            .and_then(|text| toml::from_str(text).ok())
            .ok_or_else(|| {
                let what = "what is in it is no TOML table of lines name = \"value\"";
                fail(Class::Invalid, what.into())
            })?;
        match table.get(name) {
            Some(value) => Ok(Secret::copy_of(value.0.as_bytes())?),
            None => Err(fail(Class::Missing, format!("there is no {name:?} in it"))),
        }
    }
}

/// Opens a file with the first of the identities that fits.
fn decrypt(sealed: &[u8], identities: &[Identity]) -> Result<Zeroizing<Vec<u8>>, (Class, String)> {
    let binary = format::unarmor(sealed).map_err(|reason| (Class::Protocol, reason))?;
    let file = format::File::parse(&binary).map_err(|reason| (Class::Protocol, reason))?;
    let key = identities
        .iter()
        .find_map(|identity| identity.unwrap(&file.recipients));
    let Some(key) = key else {
        let what = match file
            .recipients
            .iter()
            .any(|recipient| recipient.kind == "scrypt")
        {
            true => "it is encrypted with a passphrase: encrypt it to the key's recipient instead",
            false => "it is not encrypted to the key of this machine",
        };
        return Err((Class::Unauthorized, what.into()));
    };
    file.open(&key).map_err(|reason| (Class::Protocol, reason))
}

/// Fuzz target: no bytes may panic what reads age files and keys.
pub(super) fn fuzz(bytes: &[u8]) {
    let identities = parse_identities(
        "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SEN5P5E",
    );
    let _ = decrypt(bytes, &identities.unwrap_or_default());
    let _ = parse_identities(&String::from_utf8_lossy(bytes));
}

impl Provider for AgeFiles {
    fn fetch<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Fetched>> {
        Box::pin(async move {
            let identities = match self.identities().await {
                Ok(identities) => identities,
                Err(error) => return all(references, &error),
            };
            // A file holds many values; it is opened once.
            let mut opened = BTreeMap::new();
            let mut results: Results<Fetched> = Vec::new();
            for reference in references {
                let Reference::Age(age) = reference else {
                    results.push(Err(foreign(reference)));
                    continue;
                };
                let plain = opened
                    .entry(&age.file)
                    .or_insert_with(|| self.open(&identities, &age.file));
                let value = match plain {
                    Ok(plain) => self.value(plain, age),
                    Err(error) => Err(error.clone()),
                };
                let fetched = value.map(|value| Fetched {
                    value,
                    version: None,
                });
                results.push(fetched.map_err(|error| error.of(reference)));
            }
            results
        })
    }

    fn versions<'a>(&'a self, references: &'a [Reference]) -> Pending<'a, Results<Option<String>>> {
        Box::pin(async move { references.iter().map(|_| Ok(None)).collect() })
    }
}
