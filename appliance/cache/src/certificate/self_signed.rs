//! The self-signed certificate that serves until there is a better one.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::kept::{keep, parse, seconds};
use crate::Error;

/// Name of the file.
const FILE: &str = "self-signed.pem";
/// How long a certificate is valid.
const LIFE: Duration = Duration::from_secs(397 * 86_400);
/// A certificate is made anew this long before its end.
const MARGIN: Duration = Duration::from_secs(30 * 86_400);
/// How far a client's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(86_400);
/// Largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Makes key and certificate at `now`, as the text of a file.
fn make(names: &[String], now: SystemTime) -> Result<String, Error> {
    let failed = |error: rcgen::Error| Error::Certificate {
        reason: format!("for {names:?}: {error}"),
    };
    let date = |time: SystemTime| OffsetDateTime::from(time);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.not_before = date(now - SKEW);
    params.not_after = date(now + LIFE);
    params.distinguished_name = DistinguishedName::new();
    // Names for certificates may be longer than a common name may be.
    let common = names.first().filter(|name| name.len() <= 64);
    let common = common.map_or("larder", |name| name);
    params.distinguished_name.push(DnType::CommonName, common);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(format!(
        "names: {}\nrenew after: {}\n{}{}",
        names.join(" "),
        seconds(now + LIFE - MARGIN),
        key.serialize_pem(),
        certificate.pem(),
    ))
}

/// The certificate that is served; made anew when its end comes near.
#[derive(Debug)]
pub(crate) struct SelfSigned {
    names: Vec<String>,
    folder: Option<PathBuf>,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    renew_after: u64,
}

impl SelfSigned {
    /// Takes the certificate from `folder` or makes one. What keeps it from being kept is said,
    /// and no reason not to serve.
    pub(crate) fn open(
        names: &[String],
        folder: Option<&Path>,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let kept = folder.and_then(|folder| read(folder, names, now));
        let current = match kept {
            Some(current) => current,
            None => renew(names, folder, now)?,
        };
        Ok(Self {
            names: names.to_vec(),
            folder: folder.map(Into::into),
            current: RwLock::new(current),
        })
    }

    /// Makes the certificate anew if its time has come.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Error> {
        let renew_after = self.read(|current| current.renew_after);
        // A clock that was set right by years: the certificate would begin in the future.
        let too_early = seconds(now + LIFE) < renew_after;
        if seconds(now) <= renew_after && !too_early {
            return Ok(());
        }
        log::info!("the self-signed certificate is made anew");
        let current = renew(&self.names, self.folder.as_deref(), now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&Current) -> T) -> T {
        read(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SelfSigned {
    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        self.read(|current| Arc::clone(&current.key))
    }
}

/// Reads the kept certificate. `None`: there is none that will do.
fn read(folder: &Path, names: &[String], now: SystemTime) -> Option<Current> {
    let path = folder.join(FILE);
    let read = File::open(&path).and_then(|file| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, LARGEST), &mut bytes)?;
        Ok(bytes)
    });
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            log::warn!("{}: cannot read the certificate: {error}", path.display());
            return None;
        }
    };
    let parsed = parse(&bytes).and_then(|kept| {
        let (kept_names, renew_after) = (kept.names.clone(), kept.renew_after);
        let key = Arc::new(kept.certified()?);
        Some((kept_names, Current { key, renew_after }))
    });
    let Some((kept_names, current)) = parsed else {
        let aside = folder.join(format!("{FILE}.broken"));
        let moved = std::fs::rename(&path, &aside);
        let place = if moved.is_ok() { &aside } else { &path };
        log::error!(
            "{}: the certificate is broken and made anew; the broken file is {}",
            path.display(),
            place.display()
        );
        return None;
    };
    let valid = seconds(now) <= current.renew_after
        && current.renew_after <= seconds(now + LIFE)
        && kept_names == names;
    valid.then_some(current)
}

/// Makes a certificate and keeps it, if that is possible.
fn renew(names: &[String], folder: Option<&Path>, now: SystemTime) -> Result<Current, Error> {
    let text = make(names, now)?;
    if let Some(folder) = folder
        && let Err(error) = keep(folder, FILE, text.as_bytes())
    {
        log::warn!("{error}; it lives until the next start");
    }
    let broken = || Error::Certificate {
        reason: format!("for {names:?}: the new one cannot be read"),
    };
    let kept = parse(text.as_bytes()).ok_or_else(broken)?;
    Ok(Current {
        renew_after: kept.renew_after,
        key: Arc::new(kept.certified().ok_or_else(broken)?),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn names() -> Vec<String> {
        vec!["a.example".into(), "192.0.2.1".into()]
    }

    fn served(certificate: &SelfSigned) -> Vec<u8> {
        certificate.read(|current| current.key.cert[0].to_vec())
    }

    #[test]
    fn it_is_kept_private_until_it_will_not_do() {
        let folder = tempfile::tempdir().unwrap();
        let open = |names: &[String], now| {
            served(&SelfSigned::open(names, Some(folder.path()), now).unwrap())
        };
        let first = open(&names(), now());
        let path = folder.path().join(FILE);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(open(&names(), now() + 366 * DAY), first);
        let later = open(&names(), now() + 368 * DAY);
        assert_ne!(later, first);
        // The clock was wrong then: that certificate is not valid yet.
        let earlier = open(&names(), now());
        assert_ne!(earlier, later);
        let other = open(&names()[..1], now());
        assert_ne!(other, earlier);
        assert_eq!(open(&names()[..1], now()), other);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let good = make(&names(), now()).unwrap();
        let other = make(&names(), now()).unwrap();
        let certificate = other.find("-----BEGIN CERT").unwrap();
        // The certificate of another key.
        let mixed =
            good[..good.find("-----BEGIN CERT").unwrap()].to_owned() + &other[certificate..];
        for broken in ["", "noise", &good[..good.len() / 2], &good[6..], &mixed] {
            std::fs::write(&path, broken).unwrap();
            SelfSigned::open(&names(), Some(folder.path()), now()).unwrap();
            let aside = folder.path().join("self-signed.pem.broken");
            assert_eq!(std::fs::read_to_string(aside).unwrap(), broken);
            assert!(parse(&std::fs::read(&path).unwrap()).is_some());
        }
    }

    #[test]
    fn it_is_served_where_it_cannot_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        SelfSigned::open(&names(), Some(&missing), now()).unwrap();
        SelfSigned::open(&names(), None, now()).unwrap();
        assert!(SelfSigned::open(&["no name".into()], None, now()).is_ok());
        assert!(SelfSigned::open(&["é".into()], None, now()).is_err());
    }

    #[test]
    fn it_is_renewed_while_it_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = SelfSigned::open(&names(), Some(folder.path()), now()).unwrap();
        let first = served(&certificate);
        certificate.check(now() + 300 * DAY).unwrap();
        assert_eq!(served(&certificate), first);
        certificate.check(now() + 400 * DAY).unwrap();
        let second = served(&certificate);
        assert_ne!(second, first);
        certificate.check(now()).unwrap();
        assert_ne!(served(&certificate), second);
    }
}
