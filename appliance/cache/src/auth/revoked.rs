//! Tokens that were revoked on this machine: a file with a line each, which `appliance auth revoke`
//! writes and the service reads again when it changed.
//!
//! ```text
//! # fingerprint or SHA-256, seconds since 1970, why
//! ba7816bf8f01cfea 1790000000 leaked in a build log
//! ```

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::{Mutex, PoisonError};

use super::credential::Fingerprint;

/// Name of the file in the state folder of the service.
const FILE: &str = "revoked";
/// Largest file in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The list as it is used.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    path: Option<PathBuf>,
    /// What the file looked like when it was read.
    seen: Mutex<Option<Stamp>>,
    fingerprints: RwLock<HashSet<[u8; 8]>>,
}

type Stamp = (u64, u64, i64, i64);

impl Revoked {
    pub(super) fn open(folder: Option<&Path>) -> Self {
        let revoked = Self {
            path: folder.map(|folder| folder.join(FILE)),
            ..Self::default()
        };
        revoked.look();
        revoked
    }

    pub(super) fn has(&self, digest: &[u8; 32]) -> bool {
        let all = self
            .fingerprints
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        !all.is_empty() && all.contains(&Fingerprint::of(digest).0)
    }

    /// Reads the file if it changed. A file that cannot be read changes nothing: what was revoked
    /// stays so.
    pub(super) fn look(&self) {
        let Some(path) = &self.path else { return };
        let stamp = match std::fs::metadata(path) {
            Ok(data) => Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return log::error!("cannot look at {}: {error}", path.display()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp {
            return;
        }
        let read = match stamp {
            None => Ok(HashSet::new()),
            Some(_) => read(path),
        };
        match read {
            Ok(all) => {
                log::info!("{} revoked tokens", all.len());
                *self
                    .fingerprints
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = all;
                *seen = stamp;
            }
            Err(error) => log::error!("cannot read {}: {error}", path.display()),
        }
    }
}

fn read(path: &Path) -> std::io::Result<HashSet<[u8; 8]>> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(LARGEST)
        .read_to_string(&mut text)?;
    Ok(parse(&text))
}

/// Lines that are none are left out, so that one typing error does not bring all tokens back.
fn parse(text: &str) -> HashSet<[u8; 8]> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.filter_map(fingerprint).collect()
}

/// Of 16 hexadecimal digits, or of the first of 64.
fn fingerprint(digits: &str) -> Option<[u8; 8]> {
    if !matches!(digits.len(), 16 | 64) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(&digits[..16], 16)
        .ok()
        .map(u64::to_be_bytes)
}

/// Revokes a token: appends it to the file in the service's state folder. It is refused from the
/// next second on.
///
/// # Errors
///
/// `token` is neither a fingerprint (16 hexadecimal digits, as logs and records show it) nor a
/// SHA-256 (64), or the file cannot be written.
pub fn revoke(folder: &Path, token: &str, seconds: u64, why: &str) -> std::io::Result<()> {
    if fingerprint(token).is_none() {
        let text = "not 16 hexadecimal digits (a fingerprint) or 64 (the SHA-256 of a token)";
        return Err(std::io::Error::new(ErrorKind::InvalidInput, text));
    }
    let why: String = why
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(folder.join(FILE))?;
    // The line end comes first as well: a line that a power cut left half must not take this one.
    file.write_all(format!("\n{} {seconds} {why}\n", token.to_ascii_lowercase()).as_bytes())?;
    file.sync_all()?;
    std::fs::File::open(folder)?.sync_all()
}

/// Fuzz target.
pub(super) fn fuzz(text: &str) {
    let _ = parse(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_token_is_known_after_the_next_look_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let revoked = Revoked::open(Some(folder.path()));
        let digest = [0xab; 32];
        assert!(!revoked.has(&digest));
        assert!(revoke(folder.path(), "abab", 1, "").is_err());
        assert!(revoke(folder.path(), &"zz".repeat(8), 1, "").is_err());
        revoke(folder.path(), &"AB".repeat(8), 1, "leaked\nx").unwrap();
        revoke(folder.path(), &"cd".repeat(32), 2, "").unwrap();
        revoked.look();
        assert!(revoked.has(&digest) && revoked.has(&[0xcd; 32]) && !revoked.has(&[0xce; 32]));
        let again = Revoked::open(Some(folder.path()));
        assert!(again.has(&digest));
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(text.contains("abababababababab 1 leaked x\n"), "{text}");
        assert!(!Revoked::open(None).has(&digest));
    }

    #[test]
    fn a_bad_line_does_not_bring_the_others_back() {
        let all = parse("# notes\nnoise\n\nabababababababab 1 x\nab\u{e9}");
        assert_eq!(all, [[0xab; 8]].into());
    }
}
