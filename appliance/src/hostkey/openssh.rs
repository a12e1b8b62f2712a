//! Private Ed25519 keys without a passphrase as OpenSSH keeps them (its PROTOCOL.key; RFC 8709).
//!
//! Done here because ssh-keygen is slow to start: two runs of it were a tenth of a first boot's work.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config::ssh::PublicKey;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const END: &str = "-----END OPENSSH PRIVATE KEY-----\n";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const KIND: &[u8] = b"ssh-ed25519";
const SEED: usize = 32;
/// The private half is padded to this many bytes: the block of the cipher `none`.
const BLOCK: usize = 8;
const COLUMNS: usize = 70;

/// A new key: the private file's text, and the public half.
///
/// # Errors
///
/// The kernel gives no random bytes.
pub(super) fn make() -> Result<(Zeroizing<String>, PublicKey)> {
    let random = SystemRandom::new();
    let mut seed = Zeroizing::new([0; SEED]);
    let mut check = [0; 4];
    random
        .fill(&mut *seed)
        .and_then(|()| random.fill(&mut check))
        .ok()
        .context("the kernel gives no random bytes")?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed);
    let pair = pair.ok().context("no key comes of the random bytes")?;
    let public = pair.public_key().as_ref();

    // Its size is given, so that no copy of the seed stays behind when it grows.
    let mut private = Zeroizing::new(Vec::with_capacity(256));
    private.extend_from_slice(&check);
    private.extend_from_slice(&check);
    put(&mut private, KIND);
    put(&mut private, public);
    put(&mut private, &Zeroizing::new([&seed[..], public].concat()));
    // An empty comment: the key may outlive the name of the machine.
    put(&mut private, b"");
    let missing = private.len().next_multiple_of(BLOCK) - private.len();
    private.extend((1..).take(missing));

    let blob = blob(public);
    let mut binary = Zeroizing::new(Vec::with_capacity(512));
    binary.extend_from_slice(MAGIC);
    for field in [&b"none"[..], b"none", b""] {
        put(&mut binary, field);
    }
    binary.extend_from_slice(&1_u32.to_be_bytes());
    put(&mut binary, &blob);
    put(&mut binary, &private);

    let encoded = Zeroizing::new(STANDARD.encode(&*binary));
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str(BEGIN);
    for line in encoded.as_bytes().chunks(COLUMNS) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text.push_str(END);
    Ok((text, public_line(&blob)?))
}

/// The public half of the private key in `text`, made from it. `None`: it is no sound key of this
/// kind, and may be one of another.
pub(super) fn public_of(text: &[u8]) -> Option<PublicKey> {
    let text = std::str::from_utf8(text).ok()?;
    let body = text
        .strip_prefix(BEGIN)?
        .trim_end()
        .strip_suffix(END.trim_end())?;
    let joined = Zeroizing::new(body.split('\n').collect::<String>());
    let binary = Zeroizing::new(STANDARD.decode(joined.as_bytes()).ok()?);

    let mut rest = binary.strip_prefix(MAGIC)?;
    for expected in [&b"none"[..], b"none", b""] {
        (take(&mut rest)? == expected).then_some(())?;
    }
    rest = rest.strip_prefix(&1_u32.to_be_bytes())?;
    let outer = take(&mut rest)?;
    let mut private = take(&mut rest)?;
    rest.is_empty().then_some(())?;

    let (check, after) = private.split_at_checked(8)?;
    (check[..4] == check[4..]).then_some(())?;
    private = after;
    (take(&mut private)? == KIND).then_some(())?;
    let public = take(&mut private)?;
    let both = take(&mut private)?;
    let (seed, again) = both.split_at_checked(SEED)?;
    (again == public && outer == blob(public)).then_some(())?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?;
    public_line(outer).ok()
}

fn public_line(blob: &[u8]) -> Result<PublicKey> {
    let line = format!("ssh-ed25519 {}", STANDARD.encode(blob));
    PublicKey::parse(&line).map_err(anyhow::Error::msg)
}

fn blob(public: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    put(&mut blob, KIND);
    put(&mut blob, public);
    blob
}

/// Appends a string of RFC 4251, 5. None here reaches 4 GiB.
fn put(to: &mut Vec<u8>, field: &[u8]) {
    to.extend_from_slice(&(field.len() as u32).to_be_bytes());
    to.extend_from_slice(field);
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (field, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_read_and_no_damage_is_taken() {
        let (text, public) = make().unwrap();
        assert_eq!(public_of(text.as_bytes()), Some(public.clone()));
        for at in 0..text.len() {
            let mut damaged = text.as_bytes().to_vec();
            damaged[at] ^= 1;
            // The comment, the check numbers and the padding are free to differ, no key is.
            if let Some(other) = public_of(&damaged) {
                assert_eq!(other, public, "byte {at}");
            }
            let cut = public_of(&text.as_bytes()[..at]);
            assert!(cut.is_none() || at == text.len() - 1, "cut at {at}");
        }
    }
}
