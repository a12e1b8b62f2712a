//! Signed policies over PCR 11: the sections `.pcrpkey` and `.pcrsig` of a UKI.
//!
//! A secret sealed to the public key opens on every image whose predicted PCR 11 the private key
//! has signed, so it survives updates. Form of `.pcrsig`: `systemd-measure(1)` of systemd 257. The
//! TPM checks RSASSA with SHA-256 (`tpm2_policy_authorize` knows no other), hence RSA keys only.

use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use formats::pcr::{PCR, Value};
use packages::Digest;
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde::Serialize;

/// A key that signs policies.
pub(super) struct PolicyKey {
    pair: RsaKeyPair,
}

/// One signed policy, as systemd reads it.
#[derive(Serialize)]
struct Signed {
    pcrs: [u8; 1],
    /// SHA-256 of the public key's SubjectPublicKeyInfo.
    pkfp: String,
    /// Digest of the policy.
    pol: String,
    /// Signature, Base64.
    sig: String,
}

#[derive(Serialize)]
struct Signatures {
    sha256: [Signed; 1],
}

impl PolicyKey {
    /// Reads an RSA private key of 2048 to 4096 bits, PEM, PKCS#8 or PKCS#1.
    ///
    /// # Errors
    /// No such file, no such key. The key's bytes are in no message.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let at = || format!("--pcr-key {}", path.display());
        let key = PrivateKeyDer::from_pem_file(path)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(at)?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => bail!(
                "{}: a TPM checks policies by RSA; make one by `openssl genrsa 2048`",
                at()
            ),
        };
        let pair = pair.map_err(|error| anyhow::anyhow!("no usable RSA key: {error}"));
        Ok(Self {
            pair: pair.with_context(at)?,
        })
    }

    /// SubjectPublicKeyInfo (RFC 5280) around the PKCS#1 key.
    fn public_der(&self) -> Vec<u8> {
        // SEQUENCE { OID rsaEncryption, NULL } and a BIT STRING without unused bits.
        const ALGORITHM: [u8; 15] = [
            0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
            0x00,
        ];
        let mut bits = vec![0];
        bits.extend(self.pair.public_key().as_ref());
        let content = [&ALGORITHM[..], &der(0x03, &bits)].concat();
        der(0x30, &content)
    }

    /// The section `.pcrpkey`: the public key as PEM.
    pub(super) fn public_pem(&self) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(self.public_der());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            // Base64 is ASCII.
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem + "-----END PUBLIC KEY-----\n"
    }

    /// The section `.pcrsig` for an image that leaves PCR 11 at `value`. There is one policy: the
    /// image measures no words of boot phases (the units of systemd-pcrphase are masked), so the
    /// value holds from power-on to power-off.
    ///
    /// # Errors
    /// The signature cannot be made.
    pub(super) fn sign(&self, value: Value) -> Result<String> {
        let policy = value.policy();
        let mut signature = vec![0; self.pair.public().modulus_len()];
        // PKCS#1 v1.5 is deterministic; the generator only blinds.
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                &policy,
                &mut signature,
            )
            .map_err(|_| anyhow::anyhow!("the PCR policy cannot be signed"))?;
        let signed = Signed {
            pcrs: [PCR],
            // By this systemd finds the signature: of the bare key (PKCS#1), not of what `.pcrpkey` holds.
            pkfp: Digest::of(self.pair.public_key().as_ref()).to_string(),
            pol: Digest(policy).to_string(),
            sig: base64::engine::general_purpose::STANDARD.encode(&signature),
        };
        Ok(serde_json::to_string(&Signatures { sha256: [signed] })?)
    }
}

/// Tag, length, content (X.690, definite form).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len();
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes: Vec<u8> = len
            .to_be_bytes()
            .into_iter()
            .skip_while(|b| *b == 0)
            .collect();
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn openssl(args: &[&str]) -> Vec<u8> {
        let output = Command::new("openssl")
            .args(args)
            .output()
            .expect("openssl runs");
        assert!(
            output.status.success(),
            "openssl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    #[test]
    fn openssl_agrees_with_key_and_signatures() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        openssl(&["genrsa", "-out", &at("key.pem"), "2048"]);
        let key = PolicyKey::read(at("key.pem").as_ref()).unwrap();
        let theirs = openssl(&["rsa", "-in", &at("key.pem"), "-pubout"]);
        assert_eq!(key.public_pem().as_bytes(), theirs);

        let bare = at("key.der");
        let arguments = ["rsa", "-in", &at("key.pem"), "-RSAPublicKey_out"];
        openssl(&[&arguments[..], &["-outform", "DER", "-out", &bare]].concat());
        let fingerprint = Digest::of(&std::fs::read(bare).unwrap()).to_string();

        let value = Value([7; 32]);
        let text = key.sign(value).unwrap();
        assert_eq!(text, key.sign(value).unwrap());
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let signed = json["sha256"].as_array().unwrap();
        assert_eq!(signed.len(), 1);
        let policy = value.policy();
        assert_eq!(signed[0]["pol"], Digest(policy).to_string());
        assert_eq!(signed[0]["pcrs"], serde_json::json!([11]));
        assert_eq!(signed[0]["pkfp"], fingerprint);
        let sig = signed[0]["sig"].as_str().unwrap();
        let sig = base64::engine::general_purpose::STANDARD
            .decode(sig)
            .unwrap();
        std::fs::write(at("public.pem"), key.public_pem()).unwrap();
        std::fs::write(at("policy"), policy).unwrap();
        std::fs::write(at("sig"), sig).unwrap();
        let said = openssl(&[
            "dgst",
            "-sha256",
            "-verify",
            &at("public.pem"),
            "-signature",
            &at("sig"),
            &at("policy"),
        ]);
        assert_eq!(said, b"Verified OK\n");
    }

    #[test]
    fn other_keys_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            path.to_str().unwrap(),
        ]);
        let error = format!("{:#}", PolicyKey::read(&path).err().unwrap());
        assert!(
            error.contains("RSA") && error.contains("key.pem"),
            "{error}"
        );
        std::fs::write(&path, "nonsense").unwrap();
        assert!(PolicyKey::read(&path).is_err());
    }
}
