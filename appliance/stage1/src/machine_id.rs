//! The machine id: made once, kept on state, put over `/etc/machine-id` of the sealed root.
//! Otherwise every boot would be a first boot with a new id, and neither the journal nor cursors
//! would survive.

use std::path::Path;

use crate::SYSROOT;
use crate::console::{Fatal, Log};

/// Where it is kept, below `/var`.
const KEPT: &str = "var/lib/larder/machine-id";
/// What is mounted over `/etc/machine-id`: a file in memory, so that `/var` can be unmounted.
const SHOWN: &str = "/run/machine-id";

/// Provides the machine id of the system to come.
pub(crate) fn provide(log: &mut Log) -> Result<(), Fatal> {
    let kept = Path::new(SYSROOT).join(KEPT);
    let id = match load_or_make(&kept, log) {
        Ok(id) => id,
        Err(error) => {
            log.warn(&format!("the machine id is for this boot only: {error}"));
            new_id()?
        }
    };
    std::fs::write(SHOWN, format!("{id}\n"))
        .map_err(|error| Fatal::new(format!("{SHOWN}: {error}")))?;
    let target = format!("{SYSROOT}/etc/machine-id");
    // Unreadable for nobody, writable for nobody, as systemd has it.
    set_mode(SHOWN, 0o444)?;
    disk::mount::bind(Path::new(SHOWN), Path::new(&target))?;
    Ok(())
}

fn load_or_make(kept: &Path, log: &mut Log) -> Result<String, disk::Error> {
    match std::fs::read_to_string(kept) {
        Ok(text) if is_valid(text.trim()) => return Ok(text.trim().into()),
        Ok(_) => log.warn("the machine id makes no sense, the machine gets a new one"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // Better a foreign id for one boot than a lost one for ever.
        Err(cause) => {
            return Err(disk::Error::Path {
                path: kept.into(),
                action: "read",
                cause,
            });
        }
    }
    let id = new_id()?;
    disk::atomic::write(kept, format!("{id}\n").as_bytes(), 0o444)?;
    Ok(id)
}

/// A random UUID of version 4 as 32 hexadecimal digits (machine-id(5)).
fn new_id() -> Result<String, disk::Error> {
    Ok(disk::random_uuid()?.simple().to_string())
}

fn is_valid(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 32 && text.bytes().all(digit) && text.bytes().any(|byte| byte != b'0')
}

fn set_mode(path: &str, mode: u32) -> Result<(), Fatal> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .map_err(|error| Fatal::new(format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("machine-id");
        let mut log = Log::default();
        let id = load_or_make(&kept, &mut log).unwrap();
        assert!(is_valid(&id), "{id}");
        assert_eq!(load_or_make(&kept, &mut log).unwrap(), id);
        assert!(log.messages().is_empty());
        std::fs::remove_file(&kept).unwrap();
        std::fs::write(&kept, "uninitialized\n").unwrap();
        assert_ne!(load_or_make(&kept, &mut log).unwrap(), id);
        assert_eq!(log.messages().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_or_make(folder.path(), &mut Log::default()).is_err());
        assert!(load_or_make(&folder.path().join("no/id"), &mut Log::default()).is_err());
    }

    #[test]
    fn only_ids_are_valid() {
        assert!(is_valid("0123456789abcdef0123456789abcdef"));
        assert!(!is_valid("0123456789ABCDEF0123456789ABCDEF"));
        assert!(!is_valid("00000000000000000000000000000000"));
        assert!(!is_valid(""));
    }
}
