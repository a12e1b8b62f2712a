//! Last-known-good values, sealed on the state partition: what a machine boots with when its
//! provider is down.
//!
//! `key` holds a key of 32 bytes, sealed by [`Sealer`] once (a TPM is slow); `values` holds 12 bytes
//! of nonce and AES-256-GCM over the values, each as name, reference, version, time of the
//! provider's last word (seconds since 1970, 8 bytes) and value; texts and values with their length
//! before them (4 bytes); numbers little-endian. Both files are replaced whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::aead;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::error::{Class, FetchError};
use crate::files::replace;
use crate::seal::Sealer;
use crate::secret::{LARGEST, Secret};

/// Name under which the key is sealed.
const KEY: &str = "larder.secrets-kek";
const CONTEXT: &[u8] = b"larder last-known-good 1";
/// No more than this is read, in bytes.
const LIMIT: u64 = 64 * LARGEST as u64;

/// A value of an earlier boot.
#[derive(Debug)]
pub struct Kept {
    /// Of the secret.
    pub name: String,
    /// Where it came from. Under another reference it is another secret.
    pub reference: String,
    /// As the provider gave it.
    pub version: Option<String>,
    /// When the provider confirmed it last, in seconds since 1970.
    pub confirmed: u64,
    /// The value.
    pub value: Arc<Secret>,
}

/// Keeps values in a folder. Sealing takes time, so the key is opened when there are values to be
/// read, and made when there are some to be kept for the first time.
pub struct LastGood {
    folder: PathBuf,
    sealer: Arc<dyn Sealer>,
    key: tokio::sync::Mutex<Option<Secret>>,
}

fn local(path: &Path, what: impl Into<String>) -> FetchError {
    FetchError::new(Class::Local, what).at(path.display())
}

impl LastGood {
    /// Keeps values in a folder, which exists.
    pub fn new(folder: PathBuf, sealer: Arc<dyn Sealer>) -> Self {
        Self {
            folder,
            sealer,
            key: tokio::sync::Mutex::new(None),
        }
    }

    /// The key that is there. `None`: there is none, or none that this machine can open (any more).
    async fn open_key(&self) -> Result<Option<Secret>, FetchError> {
        let path = self.folder.join("key");
        match std::fs::read(&path) {
            Ok(sealed) => match self.sealer.open(KEY, &sealed).await {
                Ok(key) if key.len() == 32 => return Ok(Some(key)),
                Ok(_) => log::warn!(
                    "{}: the key is not 32 bytes long; making another",
                    path.display()
                ),
                Err(error) => log::warn!(
                    "the last-known-good secrets cannot be opened, beginning without them: {error}"
                ),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(local(&path, format!("cannot read it: {error}"))),
        }
        Ok(None)
    }

    /// A new key, sealed and kept.
    async fn make_key(&self) -> Result<Secret, FetchError> {
        let path = self.folder.join("key");
        let mut bytes = Zeroizing::new([0; 32]);
        fill(&mut *bytes)?;
        let key = Secret::copy_of(&*bytes)?;
        let sealed = self.sealer.seal(KEY, &key).await?;
        // Values under another key are of no use.
        self.forget()?;
        replace(&path, &sealed)
            .map_err(|error| local(&path, format!("cannot write it: {error}")))?;
        Ok(key)
    }

    /// Keeps no values any more.
    fn forget(&self) -> Result<(), FetchError> {
        let values = self.folder.join("values");
        match std::fs::remove_file(&values) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(local(&values, format!("cannot remove it: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// What was kept. Damage is an error; the next [`LastGood::write`] repairs it.
    pub async fn read(&self) -> Result<Vec<Kept>, FetchError> {
        let path = self.folder.join("values");
        let mut bytes = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > LIMIT => {
                return Err(local(&path, format!("it is larger than {LIMIT} bytes")));
            }
            Ok(_) => match std::fs::read(&path) {
                Ok(bytes) => Zeroizing::new(bytes),
                Err(error) => return Err(local(&path, format!("cannot read it: {error}"))),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(local(&path, format!("cannot read it: {error}"))),
        };
        let damaged = || local(&path, "it is damaged, or of another machine");
        let mut known = self.key.lock().await;
        if known.is_none() {
            *known = self.open_key().await?;
        }
        let Some(key) = &*known else {
            return Ok(Vec::new());
        };
        let (nonce, sealed) = bytes.split_first_chunk_mut::<12>().ok_or_else(damaged)?;
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let plain = cipher(key)?
            .open_in_place(nonce, aead::Aad::from(CONTEXT), sealed)
            .map_err(|_| damaged())?;
        parse(plain).ok_or_else(damaged)?.map_err(Into::into)
    }

    /// Keeps these values, and no others.
    pub async fn write(&self, values: &[Kept]) -> Result<(), FetchError> {
        if values.is_empty() {
            return self.forget();
        }
        let path = self.folder.join("values");
        let size = |kept: &Kept| 64 + kept.name.len() + kept.reference.len() + kept.value.len();
        // All at once, so that no copy is left behind by growing.
        let capacity = values.iter().map(size).sum::<usize>() + 4096;
        let mut plain = Zeroizing::new(Vec::with_capacity(capacity));
        for kept in values {
            let mut text = |bytes: &[u8]| {
                plain.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                plain.extend_from_slice(bytes);
            };
            text(kept.name.as_bytes());
            text(kept.reference.as_bytes());
            text(kept.version.as_deref().unwrap_or_default().as_bytes());
            text(kept.value.expose());
            plain.extend_from_slice(&kept.confirmed.to_le_bytes());
        }
        let mut nonce = [0; 12];
        fill(&mut nonce)?;
        let mut known = self.key.lock().await;
        if known.is_none() {
            *known = self.open_key().await?;
        }
        let key = match known.take() {
            Some(key) => key,
            None => self.make_key().await?,
        };
        let key = known.insert(key);
        let tag = cipher(key)?
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(CONTEXT),
                &mut plain,
            )
            .map_err(|_| local(&path, "cannot encrypt the values"))?;
        let sealed = [&nonce, plain.as_slice(), tag.as_ref()].concat();
        replace(&path, &sealed).map_err(|error| local(&path, format!("cannot write it: {error}")))
    }
}

fn cipher(key: &Secret) -> Result<aead::LessSafeKey, FetchError> {
    aead::UnboundKey::new(&aead::AES_256_GCM, key.expose())
        .map(aead::LessSafeKey::new)
        .map_err(|_| FetchError::new(Class::Local, "AES-256-GCM takes no key"))
}

fn fill(bytes: &mut [u8]) -> Result<(), FetchError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| FetchError::new(Class::Local, "the system gives no randomness"))
}

/// `None`: it does not follow the format.
pub(crate) fn parse(mut rest: &[u8]) -> Option<Result<Vec<Kept>, crate::MemoryError>> {
    fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (bytes, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *rest = tail;
        Some(bytes)
    }
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let mut values = Vec::new();
    while !rest.is_empty() {
        let name = text(take(&mut rest)?)?;
        let reference = text(take(&mut rest)?)?;
        let version = text(take(&mut rest)?)?;
        let value = take(&mut rest)?;
        let (confirmed, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        let value = match Secret::copy_of(value) {
            Ok(value) => Arc::new(value),
            Err(error) => return Some(Err(error)),
        };
        values.push(Kept {
            name,
            reference,
            version: (!version.is_empty()).then_some(version),
            confirmed: u64::from_le_bytes(*confirmed),
            value,
        });
    }
    Some(Ok(values))
}
