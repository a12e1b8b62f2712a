//! The certificate that is served: a static one from credentials, else one by ACME, else a
//! self-signed one. A new one is used by the next handshake; connections go on.

mod acme;
mod dns;
mod kept;
mod self_signed;
pub mod unchecked;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::FromDer;

use crate::Error;
use self_signed::SelfSigned;

pub use acme::AcmeSettings;
pub(crate) use acme::tend;
pub use kept::parse;
pub(crate) use kept::provider;

/// Where the certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Made here.
    SelfSigned,
    /// From an authority, by ACME.
    Acme,
    /// From the credentials `tls-cert` and `tls-key`.
    Static,
}

/// All certificates there are.
#[derive(Debug)]
pub(crate) struct Certificates {
    self_signed: SelfSigned,
    acme: RwLock<Option<Served>>,
    fixed: RwLock<Option<Served>>,
    challenges: Challenges,
    /// What keeps ACME from giving one, in words.
    trouble: Mutex<Option<String>>,
}

/// A certificate that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    ends: u64,
}

/// Answers of http-01 by token (RFC 8555, 8.3).
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenges(Arc<Mutex<HashMap<String, String>>>);

/// An answer that is given until it is dropped.
#[derive(Debug)]
pub(super) struct Answered {
    challenges: Challenges,
    token: String,
}

impl Challenges {
    fn put(&self, token: &str, answer: &str) -> Answered {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(token.into(), answer.into());
        Answered {
            challenges: self.clone(),
            token: token.into(),
        }
    }

    fn get(&self, token: &str) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(token).cloned()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut all = self
            .challenges
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.token);
    }
}

impl Served {
    /// Of key and chain; the end is that of the first certificate.
    fn new(key: CertifiedKey) -> Option<Self> {
        let ends = ends(key.cert.first()?)?;
        Some(Self {
            key: Arc::new(key),
            ends,
        })
    }
}

/// When a certificate ends, in seconds since 1970.
fn ends(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    certificate.validity().not_after.timestamp().try_into().ok()
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Certificates {
    /// With a self-signed one, kept in `folder`.
    ///
    /// # Errors
    ///
    /// None can be made.
    pub(crate) fn open(
        names: &[String],
        folder: Option<&Path>,
        now: SystemTime,
    ) -> Result<Self, Error> {
        Ok(Self {
            self_signed: SelfSigned::open(names, folder, now)?,
            acme: RwLock::default(),
            fixed: RwLock::default(),
            challenges: Challenges::default(),
            trouble: Mutex::default(),
        })
    }

    /// Makes the self-signed one anew if its time has come.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Error> {
        self.self_signed.check(now)
    }

    /// Takes a static one, PEM each, or takes it away. `Err`: what is wrong with it; what was
    /// served before stays.
    pub(crate) fn set_static(&self, pair: Option<(&[u8], &[u8])>) -> Result<(), String> {
        let served = match pair {
            None => None,
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain = chain.map_err(|error| format!("tls-cert is no PEM: {error}"))?;
                if chain.is_empty() {
                    return Err("tls-cert holds no certificate".into());
                }
                // What is wrong with a key is not repeated.
                let key = PrivateKeyDer::from_pem_slice(key);
                let key = key.map_err(|_| "tls-key holds no private key in PEM".to_owned())?;
                let pair = CertifiedKey::from_der(chain, key, &provider());
                let pair = pair.map_err(|error| format!("tls-cert and tls-key: {error}"))?;
                Some(Served::new(pair).ok_or("tls-cert holds no certificate that can be read")?)
            }
        };
        *self.fixed.write().unwrap_or_else(PoisonError::into_inner) = served;
        Ok(())
    }

    fn set_acme(&self, served: Served) {
        *self.acme.write().unwrap_or_else(PoisonError::into_inner) = Some(served);
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// What keeps ACME from giving a certificate, in words; for whoever is on call.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Where the one that is served comes from, and the seconds since 1970 at which it ends (for a
    /// self-signed one: never, it is made anew).
    pub(crate) fn state(&self) -> (Source, Option<u64>) {
        match (read(&self.fixed), read(&self.acme)) {
            (Some(fixed), _) => (Source::Static, Some(fixed.ends)),
            (None, Some(acme)) => (Source::Acme, Some(acme.ends)),
            (None, None) => (Source::SelfSigned, None),
        }
    }

    /// The answer to a challenge of http-01.
    pub(crate) fn challenge(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix("/.well-known/acme-challenge/")?;
        self.challenges.get(token)
    }

    /// Writes metrics.
    pub(crate) fn write(&self, text: &mut crate::metrics::Text) {
        let (source, ends) = self.state();
        text.family(
            "larder_cache_certificate_source",
            "gauge",
            "Which certificate is served.",
        );
        for (name, other) in [
            ("self-signed", Source::SelfSigned),
            ("acme", Source::Acme),
            ("static", Source::Static),
        ] {
            text.line("", &[("source", name)], u8::from(source == other));
        }
        text.family(
            "larder_cache_certificate_expiry_seconds",
            "gauge",
            "Seconds since 1970 at which the certificate ends.",
        );
        if let Some(ends) = ends {
            text.line("", &[], ends);
        }
        text.family(
            "larder_cache_acme_trouble",
            "gauge",
            "Whether ACME does not give a certificate.",
        );
        text.line("", &[], u8::from(self.trouble().is_some()));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let better = read(&self.fixed).or_else(|| read(&self.acme));
        Some(better.map_or_else(|| self.self_signed.key(), |served| served.key))
    }
}

/// How long before the end of a certificate of this life another one is got, where the authority
/// does not say: a third of its life.
fn margin(life: Duration) -> Duration {
    life / 3
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".into()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_static_certificate_wins_and_what_is_none_changes_nothing() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let certificates = Certificates::open(&["a.example".into()], None, now).unwrap();
        assert_eq!(certificates.state(), (Source::SelfSigned, None));
        let ((chain, key), (_, other)) = (pair(), pair());
        let set = |chain: &str, key: &str| {
            certificates.set_static(Some((chain.as_bytes(), key.as_bytes())))
        };
        set(&chain, &key).unwrap();
        assert_eq!(certificates.state().0, Source::Static);
        assert!(certificates.state().1.is_some());
        for (chain, key) in [(&*chain, &*other), ("", &key), (&chain, ""), (&key, &chain)] {
            let error = set(chain, key).unwrap_err();
            assert!(
                !error.contains("BEGIN") && !error.contains(&other[40..60]),
                "{error}"
            );
            assert_eq!(certificates.state().0, Source::Static);
        }
        certificates.set_static(None).unwrap();
        assert_eq!(certificates.state(), (Source::SelfSigned, None));
    }

    #[test]
    fn challenges_are_answered_while_they_are_open() {
        let challenges = Challenges::default();
        let answered = challenges.put("token", "token.thumb");
        assert_eq!(challenges.get("token").as_deref(), Some("token.thumb"));
        assert_eq!(challenges.get("other"), None);
        drop(answered);
        assert_eq!(challenges.get("token"), None);
    }
}
