//! `appliance hostkey`: the SSH host key, made once and kept on state.
//!
//! Debian's own unit needs a first boot and a writable `/etc/ssh`; this machine has neither.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use config::ssh::PublicKey;
use zeroize::Zeroizing;

use crate::announce::announce;
use crate::files::{self, Root};
use crate::sshkey::fingerprint;

mod openssh;

/// The key; its public half beside it ends in `.pub`.
const KEY: &str = "/var/lib/larder/ssh/ssh_host_ed25519_key";

/// Make the SSH host key if there is none, and print its fingerprint.
///
/// It is kept below /var/lib/larder/ssh. One that is damaged is put aside.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs `appliance hostkey`.
///
/// # Errors
///
/// There is no key: sshd cannot start. The reason was announced.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let path = Root::default().path(KEY);
    match ensure(&path) {
        Ok(key) => {
            println!("{} {}", fingerprint(&key), path.display());
            Ok(())
        }
        Err(error) => {
            announce(&format!("no SSH host key, nobody can log in: {error:#}"));
            Err(error)
        }
    }
}

/// The public half of the host key. `None`: there is none yet.
pub(crate) fn public(root: &Root) -> Option<PublicKey> {
    let text = files::read(&with_ending(&root.path(KEY), "pub")).ok()??;
    PublicKey::parse(std::str::from_utf8(&text).ok()?).ok()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// Makes sure that there is a sound key with its public half beside it.
fn ensure(path: &Path) -> Result<PublicKey> {
    let shown = path.display();
    if path.symlink_metadata().is_ok() {
        // ssh-keygen and sshd refuse a key that others may read.
        let tight = std::fs::set_permissions(path, PermissionsExt::from_mode(0o600));
        tight.with_context(|| format!("cannot protect {shown}"))?;
        // A disk that cannot be read is no damage of the key.
        let text = files::read(path)?.unwrap_or_default();
        match public_of(path, &Zeroizing::new(text)) {
            Ok(key) => {
                keep_public(path, &key)?;
                return Ok(key);
            }
            Err(error) => {
                let aside = with_ending(path, "broken");
                std::fs::rename(path, &aside)
                    .with_context(|| format!("cannot put the damaged {shown} aside"))?;
                announce(&format!(
                    "the SSH host key was damaged ({error:#}) and is made anew; the damaged one is \
                     {}",
                    aside.display()
                ));
            }
        }
    }
    make(path)
}

/// Makes a key: a power cut leaves no key or a whole one.
fn make(path: &Path) -> Result<PublicKey> {
    let (text, key) = openssh::make()?;
    disk::atomic::write(path, text.as_bytes(), 0o600)?;
    keep_public(path, &key)?;
    log::info!("made the SSH host key {}", path.display());
    Ok(key)
}

fn keep_public(path: &Path, key: &PublicKey) -> Result<()> {
    let public = with_ending(path, "pub");
    let line = format!("{}\n", key.line());
    if files::read(&public)
        .ok()
        .flatten()
        .is_some_and(|text| text == line.as_bytes())
    {
        return Ok(());
    }
    Ok(disk::atomic::write(&public, line.as_bytes(), 0o644)?)
}

/// The public half of the private key `text` in the file `path`, made from it.
fn public_of(path: &Path, text: &[u8]) -> Result<PublicKey> {
    if let Some(key) = openssh::public_of(text) {
        return Ok(key);
    }
    // Somebody may have put a key of another kind here.
    let line = keygen(&["-y", "-P", "", "-f"], path)?;
    let key = PublicKey::parse(&line).map_err(anyhow::Error::msg);
    key.with_context(|| format!("the public half of {}", path.display()))
}

fn keygen(arguments: &[&str], path: &Path) -> Result<String> {
    let output = Command::new("ssh-keygen")
        .args(arguments)
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .context("cannot start ssh-keygen")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let reason = message.lines().next().unwrap_or("it gave no reason");
        bail!(
            "ssh-keygen of {}: {reason} ({})",
            path.display(),
            output.status
        );
    }
    String::from_utf8(output.stdout).context("ssh-keygen does not answer in UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(folder.path().join("key.new"), "of a power cut").unwrap();
        let key = ensure(&path).unwrap();
        assert_eq!(
            (mode(&path), mode(&folder.path().join("key.pub"))),
            (0o600, 0o644)
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(key.line().starts_with("ssh-ed25519 AAAA"));
        // What ssh-keygen says of it.
        assert_eq!(
            keygen(&["-y", "-P", "", "-f"], &path).unwrap().trim(),
            key.line()
        );
        let listed = keygen(&["-l", "-f"], &path).unwrap();
        assert!(listed.contains(&fingerprint(&key)), "{listed}");

        std::fs::remove_file(folder.path().join("key.pub")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(ensure(&path).unwrap(), key);
        assert_eq!(
            (mode(&path), mode(&folder.path().join("key.pub"))),
            (0o600, 0o644)
        );
    }

    #[test]
    fn a_key_of_another_kind_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        keygen(&["-q", "-t", "ecdsa", "-N", "", "-f"], &path).unwrap();
        let key = ensure(&path).unwrap();
        assert!(key.line().starts_with("ecdsa-sha2-nistp256 "), "{key:?}");
        assert_eq!(ensure(&path).unwrap(), key);
    }

    #[test]
    fn a_damaged_key_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = ensure(&path).unwrap();
        for damage in ["", "noise"] {
            std::fs::write(&path, damage).unwrap();
            let next = ensure(&path).unwrap();
            assert_ne!(next, first);
            let aside = folder.path().join("key.broken");
            assert_eq!(std::fs::read_to_string(aside).unwrap(), damage);
            assert_eq!(ensure(&path).unwrap(), next);
        }
    }

    #[test]
    fn without_a_folder_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", ensure(&folder.path().join("no/key")).unwrap_err());
        assert!(
            error.contains("no/key.new") && error.contains("create"),
            "{error}"
        );
    }
}
