//! Blotting of secrets out of log lines, by fingerprints: the shipper never holds a secret.
//!
//! A fingerprint is made by whoever holds the value, under a key of the boot: a rolling hash of the
//! value's first eight bytes, its length, and an HMAC-SHA-256 of the whole. The shipper rolls the
//! hash over each line; where it matches, the HMAC of as many bytes decides.
//!
//! A value may go on in the next lines of the same process (a PEM key, a line that journald cut).
//! Then what a line holds of it cannot be checked by the HMAC, and is blotted all the same, as are
//! the bytes of the following lines up to the value's length: rather a line too many than one too
//! few. Of a value whose first eight bytes are themselves cut by a line's end, those in the first
//! line (seven at most) get through.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use ring::hmac;
use serde::{Deserialize, Serialize};

/// Bytes that the rolling hash covers; shorter values have no fingerprint.
const WINDOW: usize = 8;
/// What a secret is replaced by.
const BLOT: &[u8] = b"[redacted]";
/// Most processes whose unfinished lines are remembered.
const PROCESSES: usize = 1024;
/// The rolling hash is a polynomial modulo this Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;

/// The key that fingerprints of one boot are made under.
#[derive(Clone)]
pub struct Key {
    /// Where the polynomial is evaluated.
    point: u64,
    hmac: hmac::Key,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From the base of the rolling hash and the key of the HMAC, which are those of
    /// `secrets::fingerprint::Key`.
    pub fn new(base: u64, secret: &[u8; 32]) -> Self {
        Self {
            point: base % PRIME,
            hmac: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// The fingerprint of a value. `None`: it is shorter than [`WINDOW`].
    pub fn fingerprint(&self, value: &[u8]) -> Option<Fingerprint> {
        let start = value.get(..WINDOW)?;
        let start = start
            .iter()
            .fold(0, |hash, &byte| step(hash, self.point, byte));
        let mut whole = [0; 32];
        whole.copy_from_slice(hmac::sign(&self.hmac, value).as_ref());
        Some(Fingerprint {
            start,
            length: value.len() as u64,
            whole,
        })
    }
}

/// What is known of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Rolling hash of its first eight bytes.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// HMAC-SHA-256 of the whole.
    pub whole: [u8; 32],
}

fn step(hash: u64, point: u64, byte: u8) -> u64 {
    multiply(hash, point).wrapping_add(u64::from(byte)) % PRIME
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // For a Mersenne prime, high and low bits add up.
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    if sum >= PRIME { sum - PRIME } else { sum }
}

/// Blots secrets out of lines, in the order of the journal.
#[derive(Debug, Default)]
pub struct Redactor {
    key: Option<Key>,
    /// By rolling hash: length and HMAC.
    known: HashMap<u64, Vec<(usize, [u8; 32])>>,
    /// A bit for each known hash, by its low bits: nearly all windows are dismissed here.
    filter: Vec<u64>,
    /// What leaves the window, times the highest power of the point.
    leaving: Vec<u64>,
    /// By process: the end of its last line, and how much of a secret is still to come.
    processes: HashMap<Vec<u8>, Unfinished>,
    blotted: u64,
}

#[derive(Clone, Debug, Default)]
struct Unfinished {
    tail: Vec<u8>,
    remaining: usize,
}

impl Redactor {
    /// Replaces what is known about secrets.
    pub fn set(&mut self, key: Key, fingerprints: &[Fingerprint]) {
        self.known.clear();
        self.filter = vec![0; 1024];
        for fingerprint in fingerprints {
            let length = usize::try_from(fingerprint.length).unwrap_or(usize::MAX);
            self.known
                .entry(fingerprint.start)
                .or_default()
                .push((length, fingerprint.whole));
            let (word, bit) = Self::place(fingerprint.start);
            self.filter[word] |= bit;
        }
        let highest = (0..WINDOW).fold(1, |power, _| multiply(power, key.point));
        self.leaving = (0..256).map(|byte| multiply(byte, highest)).collect();
        self.key = Some(key);
    }

    /// Secrets blotted out so far.
    pub fn blotted(&self) -> u64 {
        self.blotted
    }

    fn place(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize % 1024, 1 << (hash & 63))
    }

    /// A line of a process.
    pub fn line<'a>(&mut self, process: &[u8], line: &'a [u8]) -> Cow<'a, [u8]> {
        if self.known.is_empty() {
            return line.into();
        }
        let before = self.processes.remove(process).unwrap_or_default();
        let mut blots = Vec::new();
        let mut remaining = 0;
        if before.remaining > 0 {
            blots.push(0..before.remaining.min(line.len()));
            remaining = before.remaining.saturating_sub(line.len());
        }
        remaining = remaining.max(self.scan(line, 0, usize::MAX, &mut blots));
        // Values that begin in the line before, whether journald cut it or it ended there.
        for between in [&b""[..], b"\n"] {
            if !before.tail.is_empty() {
                let joined = [&before.tail, between, line].concat();
                let skip = joined.len() - line.len();
                remaining = remaining.max(self.scan(&joined, skip, skip, &mut blots));
            }
        }
        if self.processes.len() >= PROCESSES {
            self.processes
                .retain(|_, unfinished| unfinished.remaining > 0);
            if self.processes.len() >= PROCESSES {
                self.processes.clear();
            }
        }
        let mut tail = before.tail;
        if line.len() >= WINDOW - 1 {
            tail.clear();
        }
        tail.extend_from_slice(&line[line.len().saturating_sub(WINDOW - 1)..]);
        tail.drain(..tail.len().saturating_sub(WINDOW - 1));
        self.processes
            .insert(process.to_vec(), Unfinished { tail, remaining });
        self.blot(line, blots)
    }

    /// A value that stands for itself.
    pub fn value<'a>(&mut self, value: &'a [u8]) -> Cow<'a, [u8]> {
        if self.known.is_empty() || value.len() < WINDOW {
            return value.into();
        }
        let mut blots = Vec::new();
        self.scan(value, 0, usize::MAX, &mut blots);
        self.blot(value, blots)
    }

    /// Finds secrets in `text` that begin before `until`, and adds where they are, counted from
    /// `skip`. Returns how many bytes of one are beyond the end.
    fn scan(&self, text: &[u8], skip: usize, until: usize, blots: &mut Vec<Range<usize>>) -> usize {
        let Some(key) = &self.key else {
            return 0;
        };
        let mut hash = 0;
        let mut beyond = 0;
        for (end, &byte) in text.iter().enumerate() {
            hash = step(hash, key.point, byte);
            if end >= WINDOW {
                let leaving = self.leaving[usize::from(text[end - WINDOW])];
                hash = if hash >= leaving {
                    hash - leaving
                } else {
                    hash + PRIME - leaving
                };
            }
            if end + 1 < WINDOW {
                continue;
            }
            let start = end + 1 - WINDOW;
            if start >= until {
                break;
            }
            let (word, bit) = Self::place(hash);
            if self.filter[word] & bit == 0 {
                continue;
            }
            for (length, whole) in self.known.get(&hash).into_iter().flatten() {
                let stop = start.saturating_add(*length);
                let blot = match text.get(start..stop) {
                    Some(found) => hmac::verify(&key.hmac, found, whole).is_ok(),
                    None => {
                        beyond = beyond.max(stop - text.len());
                        true
                    }
                };
                if blot {
                    blots.push(
                        start.saturating_sub(skip)..stop.min(text.len()).saturating_sub(skip),
                    );
                }
            }
        }
        beyond
    }

    fn blot<'a>(&mut self, text: &'a [u8], mut blots: Vec<Range<usize>>) -> Cow<'a, [u8]> {
        blots.retain(|blot| !blot.is_empty());
        if blots.is_empty() {
            return text.into();
        }
        blots.sort_by_key(|blot| blot.start);
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for blot in blots {
            if blot.start > at || at == 0 {
                out.extend_from_slice(&text[at..blot.start.max(at)]);
                out.extend_from_slice(BLOT);
                self.blotted += 1;
            }
            at = at.max(blot.end);
        }
        out.extend_from_slice(&text[at..]);
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"correct horse battery staple";
    const PEM: &[u8] = b"-----BEGIN KEY-----\nMIIBVQIBADANBg\nkqhkiG9w0BAQEFAAS\n-----END KEY-----";

    fn redactor() -> Redactor {
        let key = Key::new(1 << 40 | 12345, &[7; 32]);
        let known: Vec<_> = [SECRET, PEM]
            .iter()
            .map(|value| key.fingerprint(value).unwrap())
            .collect();
        let mut redactor = Redactor::default();
        redactor.set(key, &known);
        redactor
    }

    #[test]
    fn a_secret_within_a_line_and_only_it_is_blotted() {
        let mut redactor = redactor();
        let line = [b"token=", SECRET, b", twice: ", SECRET].concat();
        assert_eq!(
            &*redactor.line(b"1", &line),
            b"token=[redacted], twice: [redacted]"
        );
        assert_eq!(redactor.blotted(), 2);
        let harmless = b"correct horse is no secret; only the whole is";
        assert_eq!(&*redactor.line(b"1", harmless), harmless);
        assert_eq!(&*redactor.value(SECRET), BLOT);
        assert_eq!(&*redactor.value(b"a value"), b"a value");
    }

    #[test]
    fn a_secret_of_several_lines_is_blotted_in_each() {
        let mut redactor = redactor();
        let mut shipped = Vec::new();
        for line in PEM.split(|&byte| byte == b'\n') {
            shipped.extend_from_slice(&redactor.line(b"1", line));
            // Another process in between changes nothing.
            assert_eq!(&*redactor.line(b"2", b"something else"), b"something else");
        }
        assert_eq!(shipped, [BLOT; 4].concat());
        // A byte more for each line's end, which may or may not have been there.
        assert!(
            redactor
                .line(b"1", b"all is well again")
                .ends_with(b" is well again")
        );
        assert_eq!(&*redactor.line(b"1", b"all is well"), b"all is well");
    }

    #[test]
    fn a_line_cut_anywhere_hides_all_but_the_first_bytes() {
        let line = [b"x ", SECRET, b" y"].concat();
        for cut in 0..line.len() {
            let mut redactor = redactor();
            let mut out = redactor.line(b"1", &line[..cut]).into_owned();
            out.extend_from_slice(&redactor.line(b"1", &line[cut..]));
            for window in SECRET.windows(WINDOW) {
                assert_eq!(
                    memchr::memmem::find(&out, window),
                    None,
                    "cut at {cut}: {out:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_known_costs_nothing() {
        let mut redactor = Redactor::default();
        assert!(matches!(redactor.line(b"1", SECRET), Cow::Borrowed(_)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut redactor = redactor();
        for process in 0..5000 {
            redactor.line(format!("{process}").as_bytes(), &SECRET[..20]);
        }
        assert!(redactor.processes.len() <= PROCESSES);
    }

    proptest::proptest! {
        #[test]
        fn rolling_is_the_same_as_hashing_anew(text in proptest::collection::vec(0u8..4, 8..64)) {
            let key = Key::new(1 << 50 | 77, &[1; 32]);
            for start in 0..=text.len() - 8 {
                let mut redactor = Redactor::default();
                redactor.set(key.clone(), &[key.fingerprint(&text[start..start + 8]).unwrap()]);
                let mut blots = Vec::new();
                redactor.scan(&text, 0, usize::MAX, &mut blots);
                proptest::prop_assert!(blots.contains(&(start..start + 8)));
            }
        }
    }
}
