//! Makes OpenPGP keys and clear-signed messages (RFC 9580, Ed25519 in its legacy form of v4 keys),
//! so that tests sign what they like without gpg and its agent.

use base64::Engine as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// A signing key.
pub(crate) struct Key {
    pair: Ed25519KeyPair,
    /// Body of the public key packet.
    public: Vec<u8>,
    created: u32,
    expires: Option<u32>,
}

const TEXT: u8 = 0x01;
const CERTIFICATION: u8 = 0x13;

impl Key {
    /// A key made from a seed; valid from 2020 on, for ever.
    pub(crate) fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let created = 1_577_836_800;
        let mut public = vec![4];
        public.extend(u32::to_be_bytes(created));
        // Algorithm 22, curve 1.3.6.1.4.1.11591.15.1.
        public.extend([22, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1]);
        let point: Vec<u8> = [0x40]
            .iter()
            .chain(pair.public_key().as_ref())
            .copied()
            .collect();
        public.extend(integer(&point));
        Self {
            pair,
            public,
            created,
            expires: None,
        }
    }

    /// The same, expired since 2021.
    pub(crate) fn expired(seed: u8) -> Self {
        Self {
            expires: Some(365 * 86_400),
            ..Self::new(seed)
        }
    }

    fn fingerprint(&self) -> Vec<u8> {
        let algorithm = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
        ring::digest::digest(algorithm, &self.hashed_public())
            .as_ref()
            .to_vec()
    }

    fn hashed_public(&self) -> Vec<u8> {
        let mut out = vec![0x99];
        out.extend((self.public.len() as u16).to_be_bytes());
        out.extend(&self.public);
        out
    }

    /// The public key with its self-signature: a keyring.
    pub(crate) fn keyring(&self) -> Vec<u8> {
        let user = b"Larder test <test@larder.invalid>";
        let mut data = self.hashed_public();
        data.push(0xb4);
        data.extend((user.len() as u32).to_be_bytes());
        data.extend(user);
        let mut out = packet(6, &self.public);
        out.extend(packet(13, user));
        out.extend(self.sign(CERTIFICATION, &data));
        out
    }

    fn sign(&self, kind: u8, data: &[u8]) -> Vec<u8> {
        let subpacket = |kind: u8, value: &[u8]| -> Vec<u8> {
            [value.len() as u8 + 1, kind]
                .iter()
                .chain(value)
                .copied()
                .collect()
        };
        let fingerprint = self.fingerprint();
        let mut hashed = subpacket(2, &(self.created + 60).to_be_bytes());
        let issuer: Vec<u8> = [4].iter().chain(&fingerprint).copied().collect();
        hashed.extend(subpacket(33, &issuer));
        if kind == CERTIFICATION {
            hashed.extend(subpacket(27, &[3]));
            hashed.extend(
                self.expires
                    .map(|e| subpacket(9, &e.to_be_bytes()))
                    .unwrap_or_default(),
            );
        }
        let unhashed = subpacket(16, &fingerprint[12..]);
        // Version 4, Ed25519, SHA-256.
        let mut body = vec![4, kind, 22, 8];
        body.extend((hashed.len() as u16).to_be_bytes());
        body.extend(&hashed);
        let mut all = data.to_vec();
        all.extend(&body);
        all.extend([4, 0xff]);
        all.extend((body.len() as u32).to_be_bytes());
        let hash = ring::digest::digest(&ring::digest::SHA256, &all);
        let signature = self.pair.sign(hash.as_ref());
        body.extend((unhashed.len() as u16).to_be_bytes());
        body.extend(&unhashed);
        body.extend(&hash.as_ref()[..2]);
        body.extend(integer(&signature.as_ref()[..32]));
        body.extend(integer(&signature.as_ref()[32..]));
        packet(2, &body)
    }

    /// A clear-signed message.
    pub(crate) fn clear_sign(&self, text: &str) -> String {
        clear_sign(&[self], text)
    }
}

/// A clear-signed message with the signatures of several keys.
pub(crate) fn clear_sign(keys: &[&Key], text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let canonical = lines.join("\r\n");
    let signatures: Vec<u8> = keys
        .iter()
        .flat_map(|k| k.sign(TEXT, canonical.as_bytes()))
        .collect();
    let escaped: Vec<String> = lines
        .iter()
        .map(|l| {
            if l.starts_with('-') {
                format!("- {l}")
            } else {
                (*l).to_owned()
            }
        })
        .collect();
    format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{}\n-----BEGIN PGP SIGNATURE-----\n\n{}-----END PGP SIGNATURE-----\n",
        escaped.join("\n"),
        armor(&signatures)
    )
}

fn armor(bytes: &[u8]) -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    let text = engine.encode(bytes);
    let mut out = String::new();
    for line in text.as_bytes().chunks(64) {
        out += std::str::from_utf8(line).expect("base64");
        out.push('\n');
    }
    let crc = bytes.iter().fold(0xb7_04ce_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 16, |crc, _| {
            let crc = crc << 1;
            if crc & 0x100_0000 == 0 {
                crc
            } else {
                crc ^ 0x186_4cfb
            }
        })
    });
    out + "=" + &engine.encode(&crc.to_be_bytes()[1..]) + "\n"
}

/// A packet in the new format, shorter than 8384 bytes.
fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0 | tag];
    match body.len() {
        len @ 0..192 => out.push(len as u8),
        len => out.extend([((len - 192) >> 8) as u8 + 192, (len - 192) as u8]),
    }
    out.extend(body);
    out
}

/// A multi-precision integer.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    let bits = bytes
        .first()
        .map_or(0, |first| bytes.len() * 8 - first.leading_zeros() as usize);
    let mut out = (bits as u16).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}
