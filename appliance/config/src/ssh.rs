//! Public SSH keys as they stand in `authorized_keys` and `*.pub` (RFC 4253, 6.6; RFC 8709).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Kinds that sshd takes; RSA only with SHA-2, which is the default of every client by now.
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Longest line that is a key, in bytes.
const LONGEST: usize = 8 * 1024;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    line: String,
    blob: Vec<u8>,
}

impl PublicKey {
    /// Parses `kind base64 [comment]`; options before the kind are not taken.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.len() > LONGEST {
            return Err("it is too long".into());
        }
        if line.contains(char::is_control) {
            return Err("it has control characters".into());
        }
        let mut words = line.split_ascii_whitespace();
        let kind = words.next().unwrap_or_default();
        if !KINDS.contains(&kind) {
            // Not the word itself: it may be a secret that was put into the wrong place.
            return Err("it does not begin with a kind of public key, as ssh-ed25519".into());
        }
        let blob = words.next().unwrap_or_default();
        let blob = STANDARD
            .decode(blob)
            .map_err(|_| "its second word is not base64")?;
        let sound = match fields(&blob).as_deref() {
            // RFC 8709: 32 bytes.
            Some([named, key]) if kind == KINDS[0] => *named == kind.as_bytes() && key.len() == 32,
            Some([named, _, ..]) => *named == kind.as_bytes(),
            _ => false,
        };
        if !sound {
            return Err(format!("it is damaged: its second word is no {kind} key"));
        }
        Ok(Self {
            line: line.into(),
            blob,
        })
    }

    /// The line, without white space around it.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// What its base64 stands for (RFC 4253, 6.6).
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }
}

/// The strings that a key is made of, each with its length before it.
fn fields(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        fields.push(field);
        blob = rest;
    }
    Some(fields)
}

/// Fuzz target: no bytes may panic the parser.
pub fn fuzz(bytes: &[u8]) {
    let _ = PublicKey::parse(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by ssh-keygen for this test; its private half is lost.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOVJFV1HrYVhxauT3II8L41GrmZYZRDBd9msAeOxJ/da operator@example";

    #[test]
    fn a_key_of_ssh_keygen() {
        let key = PublicKey::parse(&format!("  {KEY}\n")).unwrap();
        assert_eq!(key.line(), KEY);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (kind, rest) = KEY.split_once(' ').unwrap();
        let cases = [
            ("", "does not begin"),
            ("ssh-dss AAAA", "does not begin"),
            (&format!("command=\"sh\" {KEY}"), "does not begin"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "does not begin"),
            (kind, "damaged"),
            (&format!("{kind} !"), "not base64"),
            (&format!("{kind} AAAA"), "damaged"),
            (&format!("ssh-rsa {rest}"), "damaged"),
            (&KEY[..60], "damaged"),
            (&format!("{KEY}\nssh-ed25519"), "control"),
            (&format!("{KEY} {}", "x".repeat(9000)), "too long"),
        ];
        for (line, reason) in cases {
            let error = PublicKey::parse(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        for length in 0..KEY.len() {
            fuzz(&KEY.as_bytes()[..length]);
            let mut bytes = KEY.as_bytes().to_vec();
            bytes[length] ^= 0x55;
            fuzz(&bytes);
        }
    }
}
