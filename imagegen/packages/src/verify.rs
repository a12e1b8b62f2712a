//! Checks the signature of an InRelease file by `gpgv`, or by `sqv` where gpgv is missing.
//!
//! Both get the signed text and the signature as two files that we split ourselves (as apt does):
//! so what is parsed afterwards is exactly what was verified.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};
use crate::release::split_clear_signed;

/// Debian's own keyrings, the first that exists is used.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// The keyring of a source, or Debian's.
pub(crate) fn keyring(signed_by: Option<&Path>) -> Result<PathBuf> {
    let tried: Vec<&Path> = match signed_by {
        Some(path) => vec![path],
        None => KEYRINGS.iter().map(Path::new).collect(),
    };
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.to_path_buf()),
        None => Err(Error::NoKeyring {
            tried: tried.iter().map(|p| p.display().to_string()).collect(),
        }),
    }
}

/// Programs that check signatures, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verifier {
    Gpgv,
    Sqv,
}

/// Checks `message` (a whole InRelease) and returns the text that was signed.
pub(crate) fn in_release(message: &[u8], keyring: &Path, url: &str) -> Result<String> {
    let bad = |reason: String| Error::Signature {
        url: url.to_owned(),
        reason,
        keyring: keyring.to_owned(),
    };
    let message = std::str::from_utf8(message).map_err(|e| bad(format!("not UTF-8: {e}")))?;
    let (text, signature) = split_clear_signed(message).map_err(|e| bad(e.to_owned()))?;
    for verifier in [Verifier::Gpgv, Verifier::Sqv] {
        match run(verifier, text.as_bytes(), signature.as_bytes(), keyring) {
            Ok(Ok(())) => return Ok(text),
            Ok(Err(reason)) => return Err(bad(reason)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(bad(format!("{verifier:?} cannot be run: {e}"))),
        }
    }
    Err(Error::NoVerifier)
}

fn temporary(bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    file.flush()?;
    Ok(file)
}

/// `Err` if the program cannot be run, `Ok(Err)` with its words if the signature is not good.
fn run(
    verifier: Verifier,
    text: &[u8],
    signature: &[u8],
    keyring: &Path,
) -> io::Result<Result<(), String>> {
    let (text, signature) = (temporary(text)?, temporary(signature)?);
    let mut command = match verifier {
        Verifier::Gpgv => {
            let mut command = Command::new("gpgv");
            command.args(["--status-fd", "1", "--keyring"]).arg(keyring);
            command.arg("--").arg(signature.path()).arg(text.path());
            command
        }
        Verifier::Sqv => {
            let mut command = Command::new("sqv");
            command.arg("--keyring").arg(keyring);
            command.arg("--").arg(signature.path()).arg(text.path());
            command
        }
    };
    command.env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output()?;
    Ok(match verifier {
        Verifier::Gpgv => judge_gpgv(&output),
        // sqv wants one good signature by default, prints fingerprints and fails otherwise.
        Verifier::Sqv if output.status.success() => Ok(()),
        Verifier::Sqv => Err(last_words(&output)),
    })
}

/// gpgv fails as soon as one of several signatures is by a key that it does not know, which is
/// usual between releases of Debian. So: at least one good one by an unexpired key, no bad one.
fn judge_gpgv(output: &Output) -> Result<(), String> {
    let status = String::from_utf8_lossy(&output.stdout);
    let (mut good, mut valid) = (false, false);
    let mut reason = None;
    for line in status.lines() {
        let Some(line) = line.strip_prefix("[GNUPG:] ") else {
            continue;
        };
        let mut words = line.split_whitespace();
        let (keyword, key) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match keyword {
            "GOODSIG" => good = true,
            // Follows the GOODSIG, EXPKEYSIG or REVKEYSIG that it belongs to.
            "VALIDSIG" if std::mem::take(&mut good) => valid = true,
            "BADSIG" => return Err("the text was changed after it was signed".to_owned()),
            "EXPKEYSIG" => reason = Some(format!("the key {key} has expired")),
            "REVKEYSIG" => reason = Some(format!("the key {key} was revoked")),
            "EXPSIG" => reason = Some(format!("the signature by {key} has expired")),
            "NO_PUBKEY" => {
                reason = Some(format!(
                    "the public key {key} is not in the keyring; a newer debian-archive-keyring may have it"
                ));
            }
            _ => {}
        }
        if matches!(keyword, "EXPKEYSIG" | "REVKEYSIG" | "EXPSIG" | "ERRSIG") {
            good = false;
        }
    }
    match (valid, reason) {
        (true, _) => Ok(()),
        (false, Some(reason)) => Err(reason),
        (false, None) => Err(last_words(output)),
    }
}

fn last_words(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = words
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    if words.is_empty() {
        output.status.to_string()
    } else {
        words.join("; ")
    }
}
