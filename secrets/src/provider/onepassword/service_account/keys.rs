//! The keys of an account: from the token's master unlock key to the keys of vaults.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use num_bigint::BigUint;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::super::json;
use super::super::super::text::SecretText;
use super::envelope::Envelope;
use crate::error::{Class, FetchError};

/// A symmetric key and its name.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) bytes: Zeroizing<[u8; 32]>,
}

/// A symmetric key as a JSON Web Key (RFC 7517; RFC 7518, 6.4).
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    kid: String,
    k: SecretText,
}

impl Jwk {
    pub(super) fn key(self) -> Result<Key, &'static str> {
        if self.kty != "oct" {
            return Err("it is no symmetric key");
        }
        let bytes = Zeroizing::new(
            URL_SAFE_NO_PAD
                .decode(&*self.k.0)
                .map_err(|_| "it is no Base64")?,
        );
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err("it is not 32 bytes long");
        }
        key.copy_from_slice(&bytes);
        Ok(Key {
            id: self.kid,
            bytes: key,
        })
    }
}

/// An RSA key that opens keys of vaults.
pub(super) struct Keyset {
    pub(super) id: String,
    modulus: BigUint,
    /// Overwritten memory is all that protects it: big numbers cannot be wiped.
    exponent: BigUint,
    length: usize,
}

#[derive(Deserialize)]
struct Keysets {
    keysets: Vec<RawKeyset>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKeyset {
    uuid: String,
    encrypted_by: String,
    enc_sym_key: Envelope,
    enc_pri_key: Envelope,
}

#[derive(Deserialize)]
struct RsaJwk {
    kty: String,
    n: String,
    d: SecretText,
}

fn broken(what: impl std::fmt::Display) -> FetchError {
    FetchError::new(Class::Protocol, format!("opening the keysets: {what}"))
}

/// Opens the keysets that the master unlock key opens.
pub(super) fn open_keysets(body: &[u8], muk: &Key) -> Result<Vec<Keyset>, FetchError> {
    let doing = "opening the keysets";
    let raw: Keysets = json(body, doing)?;
    let mut keysets = Vec::new();
    for keyset in raw.keysets.iter().filter(|set| set.encrypted_by == muk.id) {
        let jwk: Jwk = json(&keyset.enc_sym_key.open(muk, doing)?, doing)?;
        let mut middle = jwk.key().map_err(broken)?;
        // Its own name may differ; what it encrypts names the keyset.
        middle.id.clone_from(&keyset.enc_pri_key.kid);
        let rsa: RsaJwk = json(&keyset.enc_pri_key.open(&middle, doing)?, doing)?;
        if rsa.kty != "RSA" {
            return Err(broken("the private key is not RSA"));
        }
        let n = URL_SAFE_NO_PAD
            .decode(&rsa.n)
            .map_err(|_| broken("n is no Base64"))?;
        let d = URL_SAFE_NO_PAD
            .decode(&*rsa.d.0)
            .map_err(|_| broken("d is no Base64"))?;
        let d = Zeroizing::new(d);
        if !(256..=1024).contains(&n.len()) || n[0] == 0 || n[n.len() - 1] % 2 == 0 {
            return Err(broken("the private key is not of 2048 to 8192 bits"));
        }
        keysets.push(Keyset {
            id: keyset.uuid.clone(),
            length: n.len(),
            modulus: BigUint::from_bytes_be(&n),
            exponent: BigUint::from_bytes_be(&d),
        });
    }
    if keysets.is_empty() {
        return Err(broken("the account has none that the token opens"));
    }
    Ok(keysets)
}

impl Keyset {
    /// Opens a key that was encrypted to this one with RSA-OAEP (RFC 7518, 4.3).
    pub(super) fn open_key(&self, sealed: &Envelope) -> Result<Key, FetchError> {
        let fail = |what: &str| {
            FetchError::new(
                Class::Protocol,
                format!("opening the key of a vault: {what}"),
            )
        };
        if sealed.kid != self.id {
            return Err(fail("it is encrypted to another keyset than it should be"));
        }
        if sealed.enc != "RSA-OAEP" {
            return Err(fail("its encryption is not RSA-OAEP"));
        }
        let data = sealed.bytes().map_err(fail)?;
        let number = BigUint::from_bytes_be(&data);
        if data.len() != self.length || number >= self.modulus {
            return Err(fail("it is not as long as the key of the keyset"));
        }
        let bytes = Zeroizing::new(number.modpow(&self.exponent, &self.modulus).to_bytes_be());
        let mut block = Zeroizing::new(vec![0; self.length - bytes.len()]);
        block.extend_from_slice(&bytes);
        let plain = unpad(&mut block)
            .ok_or_else(|| fail("it was tampered with, or is for another keyset"))?;
        let jwk: Jwk = json(plain, "opening the key of a vault")?;
        jwk.key().map_err(fail)
    }
}

/// Takes the padding of OAEP with SHA-1 and no label off (RFC 8017, 7.1.2). The server that sends
/// the block never learns whether this failed, so there is no oracle in the time it takes.
fn unpad(block: &mut [u8]) -> Option<&[u8]> {
    const HASH: usize = 20;
    let (first, rest) = block.split_first_mut()?;
    let (seed, data) = rest.split_at_mut_checked(HASH)?;
    mask(data, seed);
    mask(seed, data);
    let empty = digest(&SHA1_FOR_LEGACY_USE_ONLY, b"");
    let (hash, data) = data.split_at_checked(HASH)?;
    let end = data.iter().position(|byte| *byte != 0)?;
    (*first == 0 && hash == empty.as_ref() && data[end] == 1).then(|| &data[end + 1..])
}

/// MGF1 with SHA-1 (RFC 8017, B.2.1), applied.
fn mask(seed: &[u8], data: &mut [u8]) {
    for (counter, block) in data.chunks_mut(20).enumerate() {
        let input = Zeroizing::new([seed, &(counter as u32).to_be_bytes()].concat());
        let pad = digest(&SHA1_FOR_LEGACY_USE_ONLY, &input);
        block
            .iter_mut()
            .zip(pad.as_ref())
            .for_each(|(byte, pad)| *byte ^= pad);
    }
}

/// Fuzz target: no bytes may panic what opens keysets and keys.
pub(super) fn fuzz(bytes: &[u8]) {
    let muk = Key {
        id: "mp".into(),
        bytes: Zeroizing::new([0; 32]),
    };
    let _ = open_keysets(bytes, &muk);
    let _ = unpad(&mut bytes.to_vec());
    if let Ok(sealed) = serde_json::from_slice::<Envelope>(bytes) {
        let _ = sealed.open(&muk, "");
    }
}
