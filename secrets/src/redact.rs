//! Blotting of secrets out of log lines, by [`crate::fingerprint`]s: who ships logs never holds a secret.
//!
//! The rolling hash goes over each line; where it is that of a known form's first eight bytes, the
//! HMAC of as many bytes as the form has decides.
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

use crate::fingerprint::{Fingerprint, Key, PRIME, WINDOW};

/// What a secret is replaced by.
pub const BLOT: &[u8] = b"[redacted]";
/// Most processes whose unfinished lines are remembered.
const PROCESSES: usize = 1024;

/// Blots secrets out of lines, in the order of the journal.
#[derive(Debug, Default)]
pub struct Redactor {
    key: Option<(Key, hmac::Key)>,
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
    pub fn set(&mut self, key: &Key, fingerprints: &[Fingerprint]) {
        self.known.clear();
        self.filter = vec![0; 1024];
        for fingerprint in fingerprints {
            self.known
                .entry(fingerprint.start)
                .or_default()
                .push((fingerprint.length, fingerprint.whole));
            let (word, bit) = Self::place(fingerprint.start);
            self.filter[word] |= bit;
        }
        self.leaving = key.leaving();
        self.key = Some((key.clone(), key.hmac()));
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
        let Some((key, hmac)) = &self.key else {
            return 0;
        };
        let mut hash = 0;
        let mut beyond = 0;
        for (end, &byte) in text.iter().enumerate() {
            hash = key.step(hash, byte);
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
            let Some(known) = self.known.get(&hash) else {
                continue;
            };
            let whole = |(length, tag): &&(usize, [u8; 32])| {
                let form = text.get(start..start.saturating_add(*length));
                form.is_some_and(|form| hmac::verify(hmac, form, tag).is_ok())
            };
            let mut stop = known
                .iter()
                .filter(whole)
                .map(|(length, _)| start + length)
                .max();
            if stop.is_none() {
                // It may go on in the next line. Not so where a form is whole: the longer ones that
                // begin with the same bytes are other ways to write the same value.
                let longest = known
                    .iter()
                    .map(|(length, _)| start.saturating_add(*length));
                stop = longest.max().filter(|stop| *stop > text.len());
            }
            if let Some(stop) = stop {
                beyond = beyond.max(stop.saturating_sub(text.len()));
                blots.push(start.saturating_sub(skip)..stop.min(text.len()).saturating_sub(skip));
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
    use base64::Engine as _;

    use super::*;

    const SECRET: &[u8] = b"correct horse battery staple";
    const PEM: &[u8] = b"-----BEGIN KEY-----\nMIIBVQIBADANBg\nkqhkiG9w0BAQEFAAS\n-----END KEY-----";

    fn redactor() -> Redactor {
        knowing(&[SECRET, PEM])
    }

    fn knowing(values: &[&[u8]]) -> Redactor {
        let key = Key::new().unwrap();
        let all: Vec<_> = values.iter().flat_map(|value| key.of(value)).collect();
        let mut redactor = Redactor::default();
        redactor.set(&key, &all);
        redactor
    }

    fn redact(redactor: &mut Redactor, text: &str) -> String {
        String::from_utf8(redactor.value(text.as_bytes()).into_owned()).unwrap()
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
        // Some bytes more: characters may or may not have been escaped.
        let next = redactor.line(b"1", b"all is well again").into_owned();
        assert!(next.ends_with(b"gain"), "{next:?}");
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
                    out.windows(WINDOW).find(|found| *found == window),
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

    #[test]
    fn every_form_is_blotted_out() {
        let value = b"p\xc3\xa4ss/w0rd+\"quoted\"?";
        let mut redactor = knowing(&[value]);
        let text = std::str::from_utf8(value).unwrap();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let percent = "p%C3%A4ss%2Fw0rd%2B%22quoted%22%3F";
        let json = r#"p\u00e4"#; // Not a form: serde leaves it as it is.
        assert_eq!(redact(&mut redactor, json), json);
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
                let expected = format!("{}[redacted]{}", around.0, around.1);
                assert_eq!(redact(&mut redactor, &line), expected, "{form}");
            }
        }
    }

    #[test]
    fn base64_within_longer_base64() {
        let mut redactor = knowing(&[b"the-secret-value"]);
        for before in ["", "u", "us", "user:", "Basic user:"] {
            for after in ["", "x", "xy", "xyz"] {
                let text = format!("{before}the-secret-value{after}");
                let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
                let redacted = redact(&mut redactor, &encoded);
                assert!(
                    redacted.contains("[redacted]"),
                    "{text}: {encoded} -> {redacted}"
                );
                // At most the few characters at its edges that it shares with others are left.
                let left = redacted.replace("[redacted]", "");
                assert!(encoded.len() - left.len() >= 20, "{redacted}");
            }
        }
    }

    #[test]
    fn many_values_and_places() {
        let mut redactor = knowing(&[b"first-value", b"second-value", b"first-value-is-longer"]);
        assert_eq!(
            redact(
                &mut redactor,
                "first-valuesecond-value first-value-is-longer, first-val"
            ),
            // What may go on in the next line is not let through.
            "[redacted] [redacted], [redacted]"
        );
        for harmless in ["nothing to see in here", "first-", "short", ""] {
            assert_eq!(redact(&mut redactor, harmless), harmless);
        }
    }

    #[test]
    fn lines_of_a_key() {
        let pem = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSj\n-----END PRIVATE KEY-----\n";
        let mut redactor = knowing(&[pem]);
        assert_eq!(
            redact(&mut redactor, "x MIIEvQIBADANBgkqhkiG9w0BAQEF y"),
            "x [redacted] y"
        );
        assert_eq!(redact(&mut redactor, "-----END X-----"), "-----END X-----");
    }

    #[test]
    fn rolling_is_the_same_as_hashing_anew() {
        // Few letters, so that windows repeat.
        let mut state = 7_u32;
        let text: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (state >> 30) as u8
        })
        .take(300)
        .collect();
        for start in 0..=text.len() - WINDOW {
            let redactor = knowing(&[&text[start..start + WINDOW]]);
            let mut blots = Vec::new();
            redactor.scan(&text, 0, usize::MAX, &mut blots);
            assert!(blots.contains(&(start..start + WINDOW)), "{start}");
        }
    }
}
