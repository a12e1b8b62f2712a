//! JSON Web Tokens (RFC 7519): HS256, HS384 or HS512 with one shared secret, ES256 with a bundle of
//! public keys.
//!
//! The key says which algorithm its tokens have; what the header says has to be the same, and
//! chooses nothing. A public key is never a secret: keys are of one kind or the other by type.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::standing::{Scope, Standing, Unpaid};
use super::{Action, Handle, Project};

/// How far the issuer's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(60);
/// DER of a SubjectPublicKeyInfo with an uncompressed point of P-256, up to the point (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Most keys of a bundle.
const MOST_KEYS: usize = 16;

/// The algorithm of a shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl SharedAlgorithm {
    /// Its name, in any case. `None`: it is none of them.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Hs256, Self::Hs384, Self::Hs512]
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    fn ring(self) -> hmac::Algorithm {
        match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
        }
    }
}

/// What tokens are signed with.
pub(super) struct Keys {
    issuer: String,
    shared: Option<(SharedAlgorithm, hmac::Key)>,
    bundle: Vec<PublicKey>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = self.shared.as_ref().map(|(algorithm, _)| algorithm);
        write!(f, "Keys({shared:?}, {} public)", self.bundle.len())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct PublicKey {
    /// Tokens that name a key name this one; `None`: it has no name.
    id: Option<String>,
    /// Uncompressed point.
    point: Vec<u8>,
}

/// What became of a token.
#[derive(Debug)]
pub(super) enum Verified {
    /// No key of ours signed it, or it is no JWT: the server may know it.
    Unknown,
    /// A key of ours signed it, and it is not valid: which claim is wrong.
    Invalid(&'static str),
    /// It is valid.
    Valid {
        /// What it grants.
        standing: Standing,
        /// That is all that it is for; otherwise the server may know more.
        complete: bool,
    },
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, 4.1.11): none are.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<serde_json::Value>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    cache_grants: Option<serde_json::Value>,
    #[serde(default)]
    projects: Option<Vec<String>>,
    #[serde(default)]
    cache_payment_required: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct Grants {
    #[serde(default)]
    project: ProjectGrants,
}

#[derive(Default, Deserialize)]
struct ProjectGrants {
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
}

impl Keys {
    /// `bundle`: PEM blocks `PUBLIC KEY`. A line `kid: NAME` before a block names it.
    ///
    /// # Errors
    ///
    /// What is wrong, without any of the secret.
    pub(super) fn new(
        issuer: &str,
        shared: Option<(SharedAlgorithm, &[u8])>,
        bundle: Option<&[u8]>,
    ) -> Result<Self, String> {
        let shared = match shared {
            Some((_, secret)) if secret.trim_ascii().is_empty() => {
                return Err("the shared secret is empty".into());
            }
            // A file's last line has an end that is no part of the secret.
            Some((algorithm, secret)) => Some((
                algorithm,
                hmac::Key::new(algorithm.ring(), secret.trim_ascii()),
            )),
            None => None,
        };
        Ok(Self {
            issuer: issuer.into(),
            shared,
            bundle: bundle.map(parse_bundle).transpose()?.unwrap_or_default(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shared.is_none() && self.bundle.is_empty()
    }

    /// Verifies a token at `now`, time since 1970.
    pub(super) fn verify(&self, token: &str, now: Duration) -> Verified {
        self.checked(token, now).unwrap_or(Verified::Unknown)
    }

    fn checked(&self, token: &str, now: Duration) -> Option<Verified> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = decode(header)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let by_bundle = if self.signed_by_secret(&header, signed, &signature) {
            false
        } else if self.signed_by_bundle(&header, signed, &signature) {
            true
        } else {
            return None;
        };
        let Some(claims) = decode::<Claims>(claims) else {
            return Some(Verified::Invalid("claims"));
        };
        Some(self.read(&header, claims, by_bundle, now))
    }

    fn signed_by_secret(&self, header: &Header, signed: &str, signature: &[u8]) -> bool {
        let Some((algorithm, key)) = &self.shared else {
            return false;
        };
        header.alg == algorithm.name() && hmac::verify(key, signed.as_bytes(), signature).is_ok()
    }

    fn signed_by_bundle(&self, header: &Header, signed: &str, signature: &[u8]) -> bool {
        if header.alg != "ES256" {
            return false;
        }
        let named = |key: &&PublicKey| key.id.is_some() && key.id == header.kid;
        let any_named = header.kid.is_some() && self.bundle.iter().any(|key| named(&key));
        self.bundle
            .iter()
            // A key with a name is for the tokens that name it; one without is for those that name
            // none that we know.
            .filter(|key| match any_named {
                true => named(key),
                false => key.id.is_none() || header.kid.is_none(),
            })
            .any(|key| {
                let algorithm = &signature::ECDSA_P256_SHA256_FIXED;
                signature::UnparsedPublicKey::new(algorithm, &key.point)
                    .verify(signed.as_bytes(), signature)
                    .is_ok()
            })
    }

    fn read(&self, header: &Header, claims: Claims, by_bundle: bool, now: Duration) -> Verified {
        if header.crit.is_some() {
            return Verified::Invalid("crit");
        }
        let is = |text: &Option<String>, allowed: &[&str]| {
            let text = text.as_deref();
            text.is_none_or(|text| allowed.iter().any(|other| other.eq_ignore_ascii_case(text)))
        };
        if !is(&header.typ, &["JWT", "cache", "cache+jwt"]) {
            return Verified::Invalid("typ");
        }
        // The keys of the bundle sign nothing but tokens for caches. A refresh token is signed like
        // an access token and must not do as one.
        let types: &[&str] = if by_bundle {
            &["cache"]
        } else {
            &["cache", "access"]
        };
        if !is(&claims.typ, types) || (by_bundle && claims.typ.is_none()) {
            return Verified::Invalid("typ");
        }
        if claims.iss.as_deref() != Some(&self.issuer) {
            return Verified::Invalid("iss");
        }
        let Some(expires) = claims.exp.and_then(time) else {
            return Verified::Invalid("exp");
        };
        if expires <= now {
            return Verified::Invalid("exp");
        }
        if let Some(from) = claims.nbf
            && time(from).is_none_or(|from| from > now + SKEW)
        {
            return Verified::Invalid("nbf");
        }
        let unpaid = match claims.cache_payment_required {
            Some(serde_json::Value::Bool(true)) => Unpaid::All,
            Some(serde_json::Value::Array(accounts)) => {
                let accounts = accounts.iter().filter_map(|account| account.as_str());
                let accounts = accounts.filter_map(|account| Handle::parse(account).ok());
                let text = super::standing::FREE_TIER;
                Unpaid::Accounts(accounts.map(|account| (account, text)).collect())
            }
            _ => Unpaid::default(),
        };
        let (scope, complete) = match claims.cache_grants {
            Some(grants) => {
                let Ok(Grants { project }) = serde_json::from_value(grants) else {
                    return Verified::Invalid("cache_grants");
                };
                let read = names(&project.read).map(|project| (project, Action::Read));
                let write = names(&project.write).map(|project| (project, Action::Write));
                // What may be written may be read: those come last and win.
                (Scope::projects(read.chain(write)), true)
            }
            None => {
                let projects = claims.projects.unwrap_or_default();
                let projects = names(&projects).map(|project| (project, Action::Write));
                (Scope::projects(projects), false)
            }
        };
        let subject = claims.sub.and_then(|subject| match subject {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        Verified::Valid {
            standing: Standing {
                subject: subject.map(|text| cut(&text).into()),
                scope,
                unpaid,
                expires: Some(expires),
            },
            complete,
        }
    }
}

/// The beginning of a subject, which a record has room for.
fn cut(subject: &str) -> &str {
    let end = (0..=subject.len().min(255))
        .rev()
        .find(|end| subject.is_char_boundary(*end));
    &subject[..end.unwrap_or(0)]
}

fn names(texts: &[String]) -> impl Iterator<Item = Project> {
    texts.iter().filter_map(|text| Project::of_full_name(text))
}

/// A NumericDate. `None`: it is no time since 1970.
fn time(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// When a token says that it ends, whoever signed it. `None`: it does not say.
pub(super) fn says_expires(token: &str) -> Option<Duration> {
    let claims = token.split('.').nth(1)?;
    decode::<Claims>(claims)?.exp.and_then(time)
}

fn parse_bundle(pem: &[u8]) -> Result<Vec<PublicKey>, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "the key bundle is no text".to_owned())?;
    let (mut keys, mut id, mut rest) = (Vec::new(), None, text);
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    while let Some(at) = rest.find(BEGIN) {
        for line in rest[..at].lines() {
            if let Some(name) = line.trim().strip_prefix("kid:") {
                id = Some(name.trim().to_owned());
            }
        }
        let block = &rest[at..];
        let number = keys.len() + 1;
        let end = block.find(END).map(|end| end + END.len());
        let end = end.ok_or_else(|| format!("key {number} of the bundle has no end"))?;
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&block.as_bytes()[..end])
            .map_err(|error| format!("key {number} of the bundle is no PEM: {error}"))?;
        let point = der.strip_prefix(&P256).filter(|point| point.len() == 65);
        let point = point
            .ok_or_else(|| format!("key {number} of the bundle is no key of P-256 (for ES256)"))?;
        keys.push(PublicKey {
            id: id.take(),
            point: point.to_vec(),
        });
        rest = &block[end..];
    }
    if rest.contains("-----BEGIN") {
        return Err("the key bundle holds something that is no PUBLIC KEY".into());
    }
    match keys.len() {
        0 => Err("the key bundle holds no PEM block PUBLIC KEY".into()),
        MOST_KEYS.. => Err(format!("the key bundle holds {MOST_KEYS} keys or more")),
        _ => Ok(keys),
    }
}

/// Fuzz target.
pub(super) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = parse_bundle(bytes);
    let _ = says_expires(&text);
    if let Ok(keys) = Keys::new("tuist", Some((SharedAlgorithm::Hs256, b"k")), None) {
        let _ = keys.verify(&text, Duration::ZERO);
        // Past the signature as well.
        let now = Duration::from_secs(1);
        if let (Ok(header), Ok(claims)) =
            (serde_json::from_slice(bytes), serde_json::from_slice(bytes))
        {
            let _ = keys.read(&header, claims, false, now);
        }
    }
}
