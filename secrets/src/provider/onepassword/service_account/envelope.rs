//! Encrypted bodies: `{kid, enc, cty, iv, data}`, of which AES-256-GCM ones are opened here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keys::Key;
use crate::error::{Class, FetchError};

/// What is encrypted, and with what.
#[derive(Deserialize, Serialize)]
pub(super) struct Envelope {
    pub(super) kid: String,
    pub(super) enc: String,
    pub(super) cty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iv: Option<String>,
    pub(super) data: String,
}

impl Envelope {
    /// Encrypts a body.
    pub(super) fn seal(key: &Key, plain: &[u8]) -> Result<Self, FetchError> {
        let mut nonce = [0; 12];
        super::srp::random(&mut nonce)?;
        let mut data = plain.to_vec();
        cipher(key)?
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::empty(),
                &mut data,
            )
            .map_err(|_| FetchError::new(Class::Local, "cannot encrypt the request"))?;
        Ok(Self {
            kid: key.id.clone(),
            enc: "A256GCM".into(),
            cty: "b5+jwk+json".into(),
            iv: Some(URL_SAFE_NO_PAD.encode(nonce)),
            data: URL_SAFE_NO_PAD.encode(data),
        })
    }

    /// The plain text, if it was encrypted under this key and nobody has touched it.
    pub(super) fn open(&self, key: &Key, doing: &str) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let fail = |what: &str| FetchError::new(Class::Protocol, format!("{doing}: {what}"));
        if self.kid != key.id {
            return Err(fail("it is encrypted under another key than it should be"));
        }
        if self.enc != "A256GCM" {
            return Err(fail("its encryption is not A256GCM"));
        }
        let nonce = self
            .iv
            .as_deref()
            .and_then(|iv| URL_SAFE_NO_PAD.decode(iv).ok());
        let nonce: [u8; 12] = nonce
            .and_then(|nonce| nonce.try_into().ok())
            .ok_or_else(|| fail("its nonce is not 12 bytes of Base64"))?;
        let mut data = self.bytes().map_err(fail)?;
        let length = cipher(key)?
            .open_in_place(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::empty(),
                &mut data,
            )
            .map_err(|_| fail("it was tampered with, or is under another key"))?
            .len();
        data.truncate(length);
        Ok(data)
    }

    /// The bytes of `data`.
    pub(super) fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let decoded = URL_SAFE_NO_PAD.decode(&self.data);
        decoded
            .map(Zeroizing::new)
            .map_err(|_| "its data is no Base64")
    }
}

fn cipher(key: &Key) -> Result<aead::LessSafeKey, FetchError> {
    aead::UnboundKey::new(&aead::AES_256_GCM, &*key.bytes)
        .map(aead::LessSafeKey::new)
        .map_err(|_| FetchError::new(Class::Local, "AES-256-GCM takes no key"))
}
