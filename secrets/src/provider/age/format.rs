//! The file format `age-encryption.org/v1` (C2SP specification age.md): what reads it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::{aead, hkdf, hmac};
use zeroize::Zeroizing;

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
/// Plain bytes of a chunk of the payload.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// Key of one file.
pub(super) type FileKey = Zeroizing<[u8; 16]>;

/// The header's word on one recipient.
#[derive(Debug)]
pub(super) struct Recipient {
    pub(super) kind: String,
    pub(super) arguments: Vec<String>,
    pub(super) body: Vec<u8>,
}

/// A file, not opened yet.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) recipients: Vec<Recipient>,
    /// What the MAC is over.
    header: &'a [u8],
    mac: Vec<u8>,
    payload: &'a [u8],
}

/// Takes the armor of a text file off, if there is one.
pub(super) fn unarmor(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let fail = |what: &str| format!("the armor of the age file is broken: {what}");
    if !bytes.trim_ascii_start().starts_with(BEGIN.as_bytes()) {
        return Ok(bytes.into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| fail("it is no text"))?;
    let body = text
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|text| text.strip_suffix(END))
        .and_then(|text| {
            text.strip_prefix("\n")
                .or_else(|| text.strip_prefix("\r\n"))
        })
        .filter(|text| text.ends_with('\n'))
        .ok_or_else(|| fail("its first or last line is"))?;
    let mut joined = String::with_capacity(body.len());
    let mut last = false;
    for line in body.lines() {
        if last || line.is_empty() || line.len() > 64 {
            return Err(fail("its lines are not of 64 characters"));
        }
        last = line.len() < 64;
        joined.push_str(line);
    }
    STANDARD.decode(joined).map_err(|_| fail("it is no Base64"))
}

/// Splits the next line off.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, String> {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or("the header of the age file ends in the middle")?;
    let (line, tail) = rest.split_at(end);
    *rest = &tail[1..];
    let printable = |c: &u8| (b' '..=b'~').contains(c);
    match std::str::from_utf8(line) {
        Ok(text) if line.iter().all(printable) => Ok(text),
        _ => Err("the header of the age file is no text".into()),
    }
}

impl<'a> File<'a> {
    /// Parses the header; nothing is decrypted.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut rest = bytes
            .strip_prefix(VERSION)
            .ok_or("this is no age file of version 1")?;
        let mut recipients = Vec::new();
        loop {
            let before = rest;
            let first = line(&mut rest)?;
            if let Some(mac) = first.strip_prefix("--- ") {
                let header = &bytes[..bytes.len() - before.len() + 3];
                let mac = STANDARD_NO_PAD
                    .decode(mac)
                    .ok()
                    .filter(|mac| mac.len() == 32)
                    .ok_or("the MAC of the age file is not 32 bytes of Base64")?;
                if recipients.is_empty() {
                    return Err("the age file has no recipients".into());
                }
                return Ok(Self {
                    recipients,
                    header,
                    mac,
                    payload: rest,
                });
            }
            let mut words = first
                .strip_prefix("-> ")
                .ok_or("the header of the age file has a line that is no recipient")?
                .split(' ')
                .map(str::to_owned);
            let kind = words.next().unwrap_or_default();
            let arguments: Vec<String> = words.collect();
            if kind.is_empty() || arguments.iter().any(String::is_empty) {
                return Err("a recipient of the age file has an empty part".into());
            }
            let mut body = Vec::new();
            loop {
                let text = line(&mut rest)?;
                let bytes = (text.len() <= 64)
                    .then(|| STANDARD_NO_PAD.decode(text).ok())
                    .flatten();
                body.extend(bytes.ok_or("a recipient of the age file is no Base64")?);
                // A shorter line, maybe an empty one, ends it.
                if text.len() < 64 {
                    break;
                }
            }
            recipients.push(Recipient {
                kind,
                arguments,
                body,
            });
        }
    }

    /// Decrypts the payload, after the header proved to be the one that the key was made with.
    pub(super) fn open(&self, key: &FileKey) -> Result<Zeroizing<Vec<u8>>, String> {
        let mac = derive(&**key, b"", b"header")?;
        hmac::verify(
            &hmac::Key::new(hmac::HMAC_SHA256, &*mac),
            self.header,
            &self.mac,
        )
        .map_err(|_| "the header of the age file was changed")?;
        let (nonce, sealed) = self
            .payload
            .split_at_checked(16)
            .ok_or("the age file is cut off")?;
        let key = derive(&**key, nonce, b"payload")?;
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &*key)
            .map(aead::LessSafeKey::new)
            .map_err(|_| "the cipher takes no key")?;
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        let chunks: Vec<&[u8]> = sealed.chunks(CHUNK + TAG).collect();
        let mut buffer = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
        for (index, chunk) in chunks.iter().enumerate() {
            let last = index + 1 == chunks.len();
            // Counter of 11 bytes, and whether it is the last chunk.
            let mut nonce = [0; 12];
            nonce[3..11].copy_from_slice(&(index as u64).to_be_bytes());
            nonce[11] = last.into();
            buffer.clear();
            buffer.extend_from_slice(chunk);
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            let opened = key
                .open_in_place(nonce, aead::Aad::empty(), &mut buffer)
                .map_err(|_| "the age file was changed or is cut off")?;
            if opened.is_empty() && index > 0 {
                return Err("the age file ends in an empty chunk".into());
            }
            plain.extend_from_slice(opened);
        }
        if chunks.is_empty() {
            return Err("the age file is cut off".into());
        }
        Ok(plain)
    }
}

/// HKDF-SHA256 of 32 bytes (RFC 5869).
pub(super) fn derive(
    secret: &[u8],
    salt: &[u8],
    info: &[u8],
) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *key))
        .map_err(|_| "the key derivation gives no key")?;
    Ok(key)
}
