//! Credentials for the system to come.
//!
//! `$CREDENTIALS_DIRECTORY` and `$ENCRYPTED_CREDENTIALS_DIRECTORY` are never set: with the latter,
//! PID 1 would import nothing from SMBIOS and fw_cfg.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::console::{Fatal, Log};

/// Where the boot loader's stub leaves what it found beside the image and on the ESP.
const EXTRA: &str = "/.extra";
/// Sealed credentials; units load the folder, so it always exists (a missing absolute path is fatal
/// to a unit).
const SEALED: &str = "/run/larder/credentials.encrypted";
/// Where systemd looks for the policy over PCR 11 that the image was signed with (systemd-stub(7)), and
/// its files: what is sealed with them opens under every image that was signed with the same key.
const POLICY: (&str, [&str; 2]) = (
    "/run/systemd",
    ["tpm2-pcr-public-key.pem", "tpm2-pcr-signature.json"],
);
/// Credentials that PID 1 imports from the initramfs.
const PLAIN: &str = "/run/credentials/@initrd";
/// Its parent, which it shares with the credentials of all units.
const PARENT: &str = "/run/credentials";
/// Name of the credential with the name of the machine.
const HOST: &str = "larder.host";
/// systemd takes no larger ones, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// Hands sealed credentials on.
pub(crate) fn hand_on(log: &mut Log) -> Result<(), Fatal> {
    make_folder(Path::new(SEALED), 0o700)?;
    copy_all(Path::new(EXTRA), Path::new(SEALED), log);
    copy_policy(Path::new(EXTRA), Path::new(POLICY.0), log)
}

/// Hands the signed policy on, if the image has one.
fn copy_policy(extra: &Path, target: &Path, log: &mut Log) -> Result<(), Fatal> {
    let signed = POLICY.1.iter().filter(|name| extra.join(name).exists());
    for name in signed {
        make_folder(target, 0o755)?;
        if let Err(reason) = copy(&extra.join(name), &target.join(name), name) {
            log.warn(&format!("{name} of the image is left out: {reason}"));
        }
    }
    Ok(())
}

/// Tells PID 1 the name of the machine.
pub(crate) fn provide_host(host: Option<&str>, log: &mut Log) -> Result<(), Fatal> {
    let Some(host) = host else { return Ok(()) };
    // The credentials of every unit are below this one: without a right to pass, a unit with a
    // user of its own would not reach its own.
    make_folder(Path::new(PARENT), 0o755)?;
    make_folder(Path::new(PLAIN), 0o700)?;
    write_new(&Path::new(PLAIN).join(HOST), host.as_bytes())
        .map_err(|error| Fatal::new(format!("{PLAIN}/{HOST}: {error}")))?;
    log.say(&format!("this machine is {host}"));
    Ok(())
}

/// Copies `EXTRA/*credentials/*.cred` without their ending. Those beside the image win over global
/// ones of the same name, as with systemd.
fn copy_all(extra: &Path, target: &Path, log: &mut Log) {
    let mut folders: Vec<_> = names(extra)
        .into_iter()
        .filter(|name| name.ends_with("credentials"))
        .collect();
    // "credentials" (beside the image) before "global_credentials" and others.
    folders.sort();
    for folder in folders {
        let folder = extra.join(folder);
        for file in names(&folder) {
            let Some(name) = file.strip_suffix(".cred") else {
                continue;
            };
            let path = folder.join(&file);
            if let Err(reason) = copy(&path, &target.join(name), name) {
                log.warn(&format!(
                    "credential {} is left out: {reason}",
                    path.display()
                ));
            }
        }
    }
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<(), String> {
    let printable = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b':';
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(printable) {
        return Err("its name is no name of a credential".into());
    }
    let metadata = std::fs::symlink_metadata(from).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(from)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LIMIT {
        return Err("it is too large".into());
    }
    match write_new(to, &bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err("there is another of this name".into())
        }
        other => other.map_err(|error| error.to_string()),
    }
}

/// Names in a folder, sorted; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?
        .write_all(bytes)
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Fatal> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| Fatal::new(format!("cannot make {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_ones_are_copied_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let extra = folder.path().join("extra");
        let target = folder.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let put = |path: &str, bytes: &[u8]| {
            let path = extra.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        put("credentials/token.cred", b"own");
        put("global_credentials/token.cred", b"global");
        put("global_credentials/other.cred", b"other");
        put("global_credentials/readme.txt", b"-");
        put("global_credentials/a:b.cred", b"-");
        put("global_credentials/.cred", b"-");
        put("global_credentials/huge.cred", &vec![0; LIMIT as usize + 1]);
        put("sysext/x.cred", b"-");
        std::os::unix::fs::symlink("/etc/shadow", extra.join("credentials/link.cred")).unwrap();
        let mut log = Log::default();
        copy_all(&extra, &target, &mut log);
        assert_eq!(names(&target), ["other", "token"]);
        assert_eq!(std::fs::read(target.join("token")).unwrap(), b"own");
        assert_eq!(log.messages().len(), 5, "{:#?}", log.messages());
        use std::os::unix::fs::PermissionsExt;
        let mode = target
            .join("token")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o400);
    }

    #[test]
    fn the_signed_policy_is_handed_on() {
        let folder = tempfile::tempdir().unwrap();
        let (extra, target) = (folder.path().join("extra"), folder.path().join("systemd"));
        std::fs::create_dir(&extra).unwrap();
        let mut log = Log::default();
        copy_policy(&extra, &target, &mut log).unwrap();
        assert!(!target.exists());
        for name in POLICY.1 {
            std::fs::write(extra.join(name), name).unwrap();
        }
        copy_policy(&extra, &target, &mut log).unwrap();
        assert_eq!(names(&target), POLICY.1);
        assert!(log.messages().is_empty());
    }

    #[test]
    fn without_any_nothing_happens() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::default();
        copy_all(&folder.path().join("none"), folder.path(), &mut log);
        assert!(log.messages().is_empty());
    }
}
