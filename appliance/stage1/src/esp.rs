//! The ESP: what is on it that stage1 needs. It is mounted read-only for a moment.

use std::io::Read;
use std::path::Path;

use slots::Entry;

use crate::console::Log;

const TARGET: &str = "/esp";
/// The name of the machine, in clear; nothing else is ever taken from the ESP in clear.
const HOST: &str = "larder/host";
/// More than this is no host name, in bytes.
const LIMIT: u64 = 1024;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Name of the machine.
    pub(crate) host: Option<String>,
    /// Boot images.
    pub(crate) entries: Vec<Entry>,
}

/// Looks at the ESP; one that is missing or broken is said and means that nothing is found.
pub(crate) fn look(device: Option<&str>, log: &mut Log) -> Found {
    let Some(device) = device else {
        log.say("the boot disk has no ESP");
        return Found::default();
    };
    let target = Path::new(TARGET);
    let options = "ro,nosuid,nodev,noexec,umask=0077";
    let mounted = std::fs::create_dir_all(target)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            disk::mount::mount(device, target, "vfat", options).map_err(|error| error.to_string())
        });
    if let Err(error) = mounted {
        log.warn(&format!("the ESP is not looked at: {error}"));
        return Found::default();
    }
    let found = read(target, log);
    if let Err(error) = disk::mount::unmount(target) {
        log.warn(&error.to_string());
    }
    found
}

fn read(esp: &Path, log: &mut Log) -> Found {
    let host = match read_limited(&esp.join(HOST)) {
        Ok(bytes) => match parse_host(&bytes) {
            Ok(host) => Some(host),
            Err(reason) => {
                log.warn(&format!("{HOST} on the ESP is no host name: {reason}"));
                None
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            log.warn(&format!("{HOST} on the ESP cannot be read: {error}"));
            None
        }
    };
    let entries = slots::list(esp).unwrap_or_else(|error| {
        log.say(&error.to_string());
        Vec::new()
    });
    Found { host, entries }
}

fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A host name: at most 253 bytes, labels of `[a-z0-9-]` of at most 63 bytes that neither begin nor
/// end with a hyphen, between dots.
fn parse_host(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "it is not text".to_owned())?
        .trim();
    if text.is_empty() || text.len() > 253 {
        return Err(format!("it has {} bytes", text.len()));
    }
    for label in text.split('.') {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let hyphen = label.starts_with('-') || label.ends_with('-');
        if label.is_empty() || label.len() > 63 || hyphen || !label.bytes().all(known) {
            return Err(format!("{text:?} has a label that may not be"));
        }
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_names_are_checked() {
        assert_eq!(
            parse_host(b"cache-eu-central\n"),
            Ok("cache-eu-central".into())
        );
        assert_eq!(
            parse_host(b" a.example.com\r\n"),
            Ok("a.example.com".into())
        );
        let long = "a".repeat(64);
        for bad in [
            "", "\n", "A", "a..b", ".a", "a.", "-a", "a-", "a b", "a/b", "a_b", &long, "é",
        ] {
            assert!(parse_host(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse_host(&[0xff]).is_err());
        assert!(parse_host("a.".repeat(127).as_bytes()).is_err());
    }

    #[test]
    fn a_folder_that_looks_like_an_esp() {
        let esp = tempfile::tempdir().unwrap();
        let mut log = Log::default();
        assert_eq!(read(esp.path(), &mut log), Found::default());
        assert!(log.messages().is_empty());
        std::fs::create_dir_all(esp.path().join("EFI/Linux")).unwrap();
        std::fs::create_dir(esp.path().join("larder")).unwrap();
        std::fs::write(esp.path().join("EFI/Linux/larder_1+3.efi"), "").unwrap();
        std::fs::write(esp.path().join(HOST), "dev\n").unwrap();
        let found = read(esp.path(), &mut log);
        assert_eq!(
            (found.host.as_deref(), found.entries.len()),
            (Some("dev"), 1)
        );
        std::fs::write(esp.path().join(HOST), vec![b'a'; 100_000]).unwrap();
        assert_eq!(read(esp.path(), &mut log).host, None);
        assert_eq!(log.messages().len(), 1);
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_host(&bytes);
        }
    }
}
