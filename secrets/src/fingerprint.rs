//! Fingerprints of values: whoever has them can blot the values out of a text, and never holds them.
//!
//! Each is of one form in which a value may show in a log: itself, a line of it, Base64 of it (both
//! alphabets, at each of the three alignments that it can have within a longer text), percent-encoded,
//! hexadecimal, escaped as in JSON. It holds the length, a rolling hash of the first 8 bytes, and an
//! HMAC-SHA256 of the whole, under keys that live as long as the boot. Forms shorter than 8 bytes
//! have none: their fingerprints could be guessed.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Class, FetchError};

/// Bytes of the rolling hash, and of the shortest form.
pub const WINDOW: usize = 8;
/// Prime of the rolling hash: 2^61 - 1.
pub(crate) const PRIME: u64 = (1 << 61) - 1;

/// One form of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of the form, in bytes.
    pub length: usize,
    /// Rolling hash of its first [`WINDOW`] bytes.
    pub start: u64,
    /// HMAC-SHA256 of all of it.
    pub whole: [u8; 32],
}

/// The keys of a boot.
#[derive(Clone, Serialize, Deserialize)]
pub struct Key {
    /// Base of the rolling hash.
    base: u64,
    /// Of the HMAC.
    secret: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Product modulo [`PRIME`].
pub(crate) fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // For a Mersenne prime, high and low bits add up.
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    if sum >= PRIME { sum - PRIME } else { sum }
}

impl Key {
    /// New keys.
    pub fn new() -> Result<Self, FetchError> {
        let fail = |_| FetchError::new(Class::Local, "the system gives no randomness");
        let (mut base, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        SystemRandom::new().fill(&mut base).map_err(fail)?;
        SystemRandom::new().fill(&mut *secret).map_err(fail)?;
        Ok(Self {
            // Small ones would let the hash show its input.
            base: u64::from_be_bytes(base) % (PRIME - (1 << 32)) + (1 << 32),
            secret,
        })
    }

    fn start(&self, bytes: &[u8]) -> u64 {
        let window = bytes.iter().take(WINDOW);
        window.fold(0, |hash, byte| self.step(hash, *byte))
    }

    /// The rolling hash with one byte more.
    pub(crate) fn step(&self, hash: u64, byte: u8) -> u64 {
        (multiply(hash, self.base) + u64::from(byte)) % PRIME
    }

    /// What a byte adds to the rolling hash once it is to leave the window, by byte.
    pub(crate) fn leaving(&self) -> Vec<u64> {
        let highest = (0..WINDOW).fold(1, |power, _| multiply(power, self.base));
        (0..256).map(|byte| multiply(byte, highest)).collect()
    }

    /// The key of the HMAC.
    pub(crate) fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.secret)
    }

    /// The fingerprints of all forms of a value.
    pub fn of(&self, value: &[u8]) -> Vec<Fingerprint> {
        // Its longer forms would be as easy to guess.
        if value.len() < WINDOW {
            return Vec::new();
        }
        let key = self.hmac();
        let mut forms = BTreeSet::new();
        let mut add = |form: &[u8]| {
            if form.len() >= WINDOW {
                let tag = hmac::sign(&key, form);
                let mut whole = [0; 32];
                whole.copy_from_slice(tag.as_ref());
                forms.insert(Fingerprint {
                    length: form.len(),
                    start: self.start(form),
                    whole,
                });
            }
        };
        encodings(value, &mut add);
        // What ends in a line break is logged without it, what has many is logged by line.
        let trimmed = value.trim_ascii();
        if trimmed.len() != value.len() {
            encodings(trimmed, &mut add);
        }
        if trimmed.contains(&b'\n') {
            for line in trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
                // The frame of a PEM file is in every PEM file.
                if line.len() >= 2 * WINDOW && !line.starts_with(b"-----") {
                    add(line);
                }
            }
        }
        forms.into_iter().collect()
    }
}

/// Calls with each way to write bytes.
fn encodings(value: &[u8], add: &mut impl FnMut(&[u8])) {
    const UPPER: &[u8] = b"0123456789ABCDEF";
    const LOWER: &[u8] = b"0123456789abcdef";
    add(value);
    for before in 0..3_usize {
        // With so many bytes before it: the characters that hold only bits of the value.
        let mut padded = Zeroizing::new(vec![0; before]);
        padded.extend_from_slice(value);
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(&*padded));
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        if let Some(own) = text.as_bytes().get(first..last) {
            add(own);
            let url: Zeroizing<Vec<u8>> = Zeroizing::new(
                own.iter()
                    .map(|c| match c {
                        b'+' => b'-',
                        b'/' => b'_',
                        c => *c,
                    })
                    .collect(),
            );
            add(&url);
        }
    }
    for digits in [UPPER, LOWER] {
        let hex = |byte: &u8| {
            [
                digits[usize::from(byte >> 4)],
                digits[usize::from(byte & 15)],
            ]
        };
        add(&Zeroizing::new(
            value.iter().flat_map(hex).collect::<Vec<u8>>(),
        ));
        let mut percent = Zeroizing::new(Vec::with_capacity(value.len() * 3));
        for byte in value {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
                percent.push(*byte);
            } else {
                percent.push(b'%');
                percent.extend_from_slice(&hex(byte));
            }
        }
        add(&percent);
    }
    if let Ok(text) = std::str::from_utf8(value)
        && let Ok(quoted) = serde_json::to_vec(text).map(Zeroizing::new)
    {
        add(&quoted[1..quoted.len() - 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_have_none() {
        let key = Key::new().unwrap();
        // Nor have their longer forms.
        assert!(key.of(b"1234567").is_empty() && key.of(b"").is_empty());
        assert!(!key.of(b"12345678").is_empty());
    }
}
