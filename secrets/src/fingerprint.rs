//! Fingerprints of values: whoever has them can blot the values out of a text, and never holds them.
//!
//! Each is of one form in which a value may show in a log: itself, a line of it, Base64 of it (both
//! alphabets, at each of the three alignments that it can have within a longer text), percent-encoded,
//! hexadecimal, escaped as in JSON. It holds the length, a rolling hash of the first 8 bytes, and an
//! HMAC-SHA256 of the whole, under keys that live as long as the boot. Forms shorter than 8 bytes
//! have none: their fingerprints could be guessed.

use std::collections::{BTreeSet, HashMap};

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
const PRIME: u64 = (1 << 61) - 1;

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

fn multiply(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
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
        let step = |hash, byte: &u8| (multiply(hash, self.base) + u64::from(*byte)) % PRIME;
        bytes.iter().take(WINDOW).fold(0, step)
    }

    fn hmac(&self) -> hmac::Key {
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

/// Blots values out of texts, by their fingerprints.
#[derive(Debug)]
pub struct Redactor {
    key: Key,
    hmac: hmac::Key,
    /// By hash of the first bytes, the longest first.
    known: HashMap<u64, Vec<Fingerprint>>,
    /// The base to the power of [`WINDOW`] - 1.
    power: u64,
}

/// What stands in place of a value.
pub const BLOT: &[u8] = b"[secret]";

impl Redactor {
    /// Knows these.
    pub fn new(key: Key, fingerprints: impl IntoIterator<Item = Fingerprint>) -> Self {
        let mut known: HashMap<u64, Vec<Fingerprint>> = HashMap::new();
        for fingerprint in fingerprints {
            known
                .entry(fingerprint.start)
                .or_default()
                .push(fingerprint);
        }
        for same in known.values_mut() {
            same.sort_by_key(|fingerprint| std::cmp::Reverse(fingerprint.length));
        }
        let power = (1..WINDOW).fold(1, |power, _| multiply(power, key.base));
        Self {
            hmac: key.hmac(),
            key,
            known,
            power,
        }
    }

    /// The text without values. `None`: there were none in it.
    pub fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.known.is_empty() || text.len() < WINDOW {
            return None;
        }
        let mut output: Option<Vec<u8>> = None;
        // Up to where the text is copied or blotted out.
        let mut done = 0;
        let mut at = 0;
        let mut hash = self.key.start(text);
        loop {
            let found = self.known.get(&hash).and_then(|same| {
                same.iter().find(|known| {
                    let form = text.get(at..at + known.length);
                    form.is_some_and(|form| hmac::verify(&self.hmac, form, &known.whole).is_ok())
                })
            });
            if let Some(found) = found {
                let output = output.get_or_insert_default();
                output.extend_from_slice(&text[done..at]);
                output.extend_from_slice(BLOT);
                at += found.length;
                done = at;
                if text.len() - at < WINDOW {
                    break;
                }
                hash = self.key.start(&text[at..]);
                continue;
            }
            let Some(next) = text.get(at + WINDOW) else {
                break;
            };
            let without = hash + PRIME - multiply(text[at].into(), self.power);
            hash = (multiply(without % PRIME, self.key.base) + u64::from(*next)) % PRIME;
            at += 1;
        }
        output.map(|mut output| {
            output.extend_from_slice(&text[done..]);
            output
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(values: &[&[u8]]) -> Redactor {
        let key = Key::new().unwrap();
        let all: Vec<_> = values.iter().flat_map(|value| key.of(value)).collect();
        Redactor::new(key, all)
    }

    fn redact(redactor: &Redactor, text: &str) -> String {
        match redactor.redact(text.as_bytes()) {
            Some(text) => String::from_utf8(text).unwrap(),
            None => text.into(),
        }
    }

    #[test]
    fn every_form_is_blotted_out() {
        let value = b"p\xc3\xa4ss/w0rd+\"quoted\"?";
        let redactor = redactor(&[value]);
        let text = std::str::from_utf8(value).unwrap();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let percent = "p%C3%A4ss%2Fw0rd%2B%22quoted%22%3F";
        let json = r#"p\u00e4"#; // Not a form: serde leaves it as it is.
        assert_eq!(redact(&redactor, json), json);
        for form in [
            text,
            &hex,
            &hex.to_uppercase(),
            percent,
            &percent.to_lowercase(),
            "p\u{e4}ss/w0rd+\\\"quoted\\\"?",
        ] {
            for around in [("", ""), ("before ", " after"), ("x", "x"), ("\"", "\"")] {
                let line = format!("{}{form}{}", around.0, around.1);
                let expected = format!("{}[secret]{}", around.0, around.1);
                assert_eq!(redact(&redactor, &line), expected, "{form}");
            }
        }
    }

    #[test]
    fn base64_within_longer_base64() {
        let redactor = redactor(&[b"the-secret-value"]);
        for before in ["", "u", "us", "user:", "Basic user:"] {
            for after in ["", "x", "xy", "xyz"] {
                let text = format!("{before}the-secret-value{after}");
                let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
                let redacted = redact(&redactor, &encoded);
                assert!(
                    redacted.contains("[secret]"),
                    "{text}: {encoded} -> {redacted}"
                );
                // At most the few characters at its edges that it shares with others are left.
                let left = redacted.replace("[secret]", "");
                assert!(encoded.len() - left.len() >= 20, "{redacted}");
            }
        }
    }

    #[test]
    fn many_values_and_places() {
        let redactor = redactor(&[b"first-value", b"second-value", b"first-value-is-longer"]);
        assert_eq!(
            redact(
                &redactor,
                "first-valuesecond-value first-value-is-longer, first-valu"
            ),
            "[secret][secret] [secret], first-valu"
        );
        assert!(redactor.redact(b"nothing to see in here").is_none());
        assert!(redactor.redact(b"short").is_none());
        assert!(redactor.redact(b"").is_none());
    }

    #[test]
    fn lines_of_a_key() {
        let pem = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSj\n-----END PRIVATE KEY-----\n";
        let redactor = redactor(&[pem]);
        assert_eq!(
            redact(&redactor, "x MIIEvQIBADANBgkqhkiG9w0BAQEF y"),
            "x [secret] y"
        );
        assert_eq!(
            redact(&redactor, "-----BEGIN PRIVATE KEY-----"),
            "-----BEGIN PRIVATE KEY-----"
        );
    }

    #[test]
    fn short_values_have_none() {
        let key = Key::new().unwrap();
        // Nor have their longer forms.
        assert!(key.of(b"1234567").is_empty() && key.of(b"").is_empty());
        assert!(!key.of(b"12345678").is_empty());
    }
}
