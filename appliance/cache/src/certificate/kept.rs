//! A certificate in a file, and the file's life.
//!
//! One file holds key, certificate and what is to be known about them, so that no two files can
//! disagree; it is replaced whole:
//!
//! ```text
//! names: cache-eu-central.tuist.dev
//! renew after: 1790000000
//! -----BEGIN PRIVATE KEY-----
//! -----BEGIN CERTIFICATE-----
//! ```

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::Error;

/// The provider of all cryptography: named everywhere, never a default of the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a file holds.
#[derive(Debug)]
pub struct Kept {
    /// Names that the certificate is for.
    pub names: Vec<String>,
    /// Seconds since 1970 after which it is to be made anew.
    pub renew_after: u64,
    pub(super) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Parses a file. `None`: it is broken.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Kept> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let names = lines.next()?.strip_prefix("names: ")?;
    let renew_after = lines.next()?.strip_prefix("renew after: ")?.parse().ok()?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    Some(Kept {
        names: names.split(' ').map(Into::into).collect(),
        renew_after,
        chain: chain.ok().filter(|chain| !chain.is_empty())?,
        key: PrivateKeyDer::from_pem_slice(bytes).ok()?,
    })
}

impl Kept {
    /// Key and certificate for rustls. `None`: they are not a pair, or of an unknown kind.
    pub(super) fn certified(self) -> Option<CertifiedKey> {
        CertifiedKey::from_der(self.chain, self.key, &provider()).ok()
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Replaces the file: a power cut leaves the old one or the new one.
pub(super) fn keep(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}.new"));
    let work = || {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    work().map_err(|source| Error::Keep {
        path: path.clone(),
        source,
    })
}
