//! Keys of age: `AGE-SECRET-KEY-1…`, Bech32 (BIP 173) of an X25519 secret key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::format::{FileKey, Recipient, derive};

const HRP: &str = "age-secret-key-";
const ALPHABET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// One X25519 key. It wipes itself.
pub(in super::super) struct Identity(StaticSecret);

/// Reads a file of keys: one a line, empty lines and comments between.
pub(in super::super) fn parse(text: &str) -> Result<Vec<Identity>, String> {
    let mut identities = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |what| format!("line {}: {what}", index + 1);
        let key = bech32(line).ok_or_else(|| fail("it is no key AGE-SECRET-KEY-1…"))?;
        identities.push(Identity(StaticSecret::from(*key)));
    }
    if identities.is_empty() {
        return Err("there is no key AGE-SECRET-KEY-1… in it".into());
    }
    Ok(identities)
}

impl Identity {
    /// The key of the file, if one of its recipients is ours.
    pub(super) fn unwrap(&self, recipients: &[Recipient]) -> Option<FileKey> {
        recipients
            .iter()
            .filter(|recipient| recipient.kind == "X25519")
            .find_map(|recipient| self.unwrap_one(recipient))
    }

    fn unwrap_one(&self, recipient: &Recipient) -> Option<FileKey> {
        let [share] = &recipient.arguments[..] else {
            return None;
        };
        let share: [u8; 32] = STANDARD_NO_PAD.decode(share).ok()?.try_into().ok()?;
        if recipient.body.len() != 32 {
            return None;
        }
        let shared = self.0.diffie_hellman(&PublicKey::from(share));
        // A share of low order makes a key that everybody knows.
        if !shared.was_contributory() {
            return None;
        }
        let salt = [share, *PublicKey::from(&self.0).as_bytes()].concat();
        let key = derive(shared.as_bytes(), &salt, b"age-encryption.org/v1/X25519").ok()?;
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*key).ok()?;
        let mut body = Zeroizing::new(recipient.body.clone());
        let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
        let opened = aead::LessSafeKey::new(key)
            .open_in_place(nonce, aead::Aad::empty(), &mut body)
            .ok()?;
        let mut file = Zeroizing::new([0; 16]);
        file.copy_from_slice(opened);
        Some(file)
    }
}

/// The 32 bytes of a key. `None`: wrong prefix, characters, length or checksum.
fn bech32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    // All upper case, as it is written, or all lower case.
    if text.len() > 90 || (text.to_ascii_uppercase() != text && text.to_ascii_lowercase() != text) {
        return None;
    }
    let text = Zeroizing::new(text.to_ascii_lowercase());
    let data = text.strip_prefix(HRP)?.strip_prefix('1')?;
    let mut values = Zeroizing::new(Vec::with_capacity(90));
    for c in data.bytes() {
        values.push(ALPHABET.iter().position(|a| *a == c)? as u8);
    }
    let expanded = HRP
        .bytes()
        .map(|c| c >> 5)
        .chain([0])
        .chain(HRP.bytes().map(|c| c & 31));
    if polymod(expanded.chain(values.iter().copied())) != 1 {
        return None;
    }
    let values = &values[..values.len().checked_sub(6)?];
    let mut key = Zeroizing::new([0; 32]);
    let (mut bits, mut count, mut length) = (0_u32, 0, 0);
    for value in values {
        bits = bits << 5 | u32::from(*value);
        count += 5;
        if count >= 8 {
            count -= 8;
            *key.get_mut(length)? = (bits >> count) as u8;
            length += 1;
            bits &= (1 << count) - 1;
        }
    }
    // The bits that are left are padding, and zero.
    (length == key.len() && count < 5 && bits == 0).then_some(key)
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x1ff_ffff) << 5 ^ u32::from(value);
        (0..5)
            .filter(|bit| top >> bit & 1 == 1)
            .fold(sum, |sum, bit| sum ^ GENERATOR[bit])
    })
}
