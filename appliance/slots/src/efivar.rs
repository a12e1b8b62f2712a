//! EFI variables of the boot loader interface (systemd.io/BOOT_LOADER_INTERFACE), through efivarfs.
//!
//! A file of efivarfs holds 4 bytes of attributes, little-endian, then the value; those read and
//! written here are strings in UTF-16, little-endian, with a zero at the end.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Where efivarfs is mounted.
pub const FOLDER: &str = "/sys/firmware/efi/efivars";
/// Vendor of all variables of the boot loader interface.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Non-volatile, readable while booting and at run time.
const ATTRIBUTES: u32 = 7;
/// A longer value is not believed, in bytes.
const LIMIT: usize = 64 * 1024;

/// Partition of the ESP that the boot loader was started from.
pub const LOADER_DEVICE: &str = "LoaderDevicePartUUID";
/// The entry that was booted.
pub const ENTRY_SELECTED: &str = "LoaderEntrySelected";
/// The entry to boot next, once.
pub const ENTRY_ONE_SHOT: &str = "LoaderEntryOneShot";
/// Path on the ESP of the booted file, with its counter.
pub const BOOT_COUNT_PATH: &str = "LoaderBootCountPath";

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-{VENDOR}"))
}

/// Reads a string; `None` if there is no such variable (or no EFI at all).
///
/// # Errors
///
/// It could not be read, or is no string.
pub fn read(folder: &Path, name: &str) -> Result<Option<String>, Error> {
    let path = path(folder, name);
    match std::fs::read(&path) {
        Ok(bytes) => parse(&bytes)
            .map(Some)
            .map_err(|reason| Error::Content { path, reason }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::Path {
            path,
            action: "read",
            cause,
        }),
    }
}

fn parse(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() > LIMIT {
        return Err(format!("it has {} bytes", bytes.len()));
    }
    let value = bytes.get(4..).ok_or("it is shorter than its attributes")?;
    let units = value
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    char::decode_utf16(units.take_while(|&unit| unit != 0))
        .collect::<Result<String, _>>()
        .map_err(|_| "it is not UTF-16".to_owned())
}

/// Writes a string that survives a reboot.
///
/// # Errors
///
/// The firmware refused.
pub fn write(folder: &Path, name: &str, value: &str) -> Result<(), Error> {
    let path = path(folder, name);
    // The kernel marks variables as immutable against `rm -rf`.
    if let Ok(file) = std::fs::File::open(&path)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags - rustix::fs::IFlags::IMMUTABLE);
    }
    let mut bytes = ATTRIBUTES.to_le_bytes().to_vec();
    for unit in value.encode_utf16().chain([0]) {
        bytes.extend(unit.to_le_bytes());
    }
    // One write(2) is one call of the firmware.
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(Error::path(path, "write"))
}

/// Fuzz target: no bytes may panic the parser.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), ENTRY_ONE_SHOT).unwrap(), None);
        write(folder.path(), ENTRY_ONE_SHOT, "larder_2.efi").unwrap();
        assert_eq!(
            read(folder.path(), ENTRY_ONE_SHOT).unwrap().unwrap(),
            "larder_2.efi"
        );
        let raw = std::fs::read(path(folder.path(), ENTRY_ONE_SHOT)).unwrap();
        assert_eq!(&raw[..8], [7, 0, 0, 0, b'l', 0, b'a', 0]);
        assert_eq!(raw[raw.len() - 2..], [0, 0]);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(parse(b"abc").is_err());
        assert!(parse(b"\x07\0\0\0\0\xd8a\0").is_err());
        assert!(parse(&vec![0; LIMIT + 1]).is_err());
        assert_eq!(parse(b"\x07\0\0\0"), Ok(String::new()));
        assert_eq!(parse(b"\x07\0\0\0a\0b"), Ok("a".into()));
    }
}
