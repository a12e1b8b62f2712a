//! What is on a partition or a disk: one of ours, nothing, or something that has an owner.

use crate::superblock::Ext4;
use crate::{Error, ReadAt};

/// What a device holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An ext4.
    Ext4(Ext4),
    /// Zeros where every known format keeps its signature.
    Blank,
    /// Something else, in words that complete "it holds ...".
    Foreign(String),
}

impl std::fmt::Display for Content {
    /// Completes "it holds ...".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ext4(ext4) if ext4.is_pristine() => write!(f, "a pristine file system"),
            Self::Ext4(ext4) => write!(f, "an ext4 labelled {:?}, UUID {}", ext4.label, ext4.uuid),
            Self::Blank => write!(f, "no file system"),
            Self::Foreign(what) => write!(f, "{what}"),
        }
    }
}

/// Bytes from the start that hold the signatures of [`SIGNATURES`].
const WINDOW: usize = 68 * 1024;

/// Offset, bytes, name: enough to tell an operator what is in the way.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0x10040, b"_BHRfS_M", "a btrfs"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (512, b"LABELONE", "an LVM physical volume"),
    (0, b"LABELONE", "an LVM physical volume"),
    (4086, b"SWAPSPACE2", "swap space"),
    (3, b"NTFS    ", "an NTFS"),
    (3, b"EXFAT   ", "an exFAT"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT1", "a FAT file system"),
    (32769, b"CD001", "an ISO 9660 file system"),
    (0, b"hsqs", "a squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS"),
    (0, b"verity\0\0", "a dm-verity tree"),
    (
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
        "a bcache device",
    ),
    (512, b"EFI PART", "a partition table (GPT)"),
    (
        4096,
        b"EFI PART",
        "a partition table (GPT for sectors of 4096 bytes)",
    ),
    (510, b"\x55\xaa", "a partition table (MBR) or a boot sector"),
];

/// Finds out what a device holds. Reads the first 68 KiB.
///
/// # Errors
///
/// The device failed: nothing is known about what it holds.
pub fn identify(device: &mut dyn ReadAt) -> Result<Content, Error> {
    let length = usize::try_from(device.size())
        .unwrap_or(usize::MAX)
        .min(WINDOW);
    let start = device.read_vec(0, length)?;
    if let Some(ext4) = start.get(1024..).and_then(Ext4::parse) {
        return Ok(Content::Ext4(ext4));
    }
    for (offset, bytes, name) in SIGNATURES {
        if start.get(*offset..offset + bytes.len()) == Some(bytes) {
            return Ok(Content::Foreign((*name).into()));
        }
    }
    match start.iter().position(|&byte| byte != 0) {
        None => Ok(Content::Blank),
        Some(at) => Ok(Content::Foreign(format!("unknown data (at byte {at})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::{HALF, OFFSET, pristine_half};

    fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut disk = vec![0; 1 << 20];
        disk[offset..offset + bytes.len()].copy_from_slice(bytes);
        disk
    }

    fn words(disk: &[u8]) -> String {
        identify(&mut &*disk).unwrap().to_string()
    }

    #[test]
    fn names_what_it_finds() {
        for (offset, bytes, name) in SIGNATURES {
            assert_eq!(words(&with(*offset, bytes)), *name);
        }
        assert_eq!(words(&[0; 4096]), "no file system");
        assert_eq!(words(&with(70_000, b"beyond")), "no file system");
        assert_eq!(words(&with(7, b"x")), "unknown data (at byte 7)");
        let half = pristine_half(uuid::Uuid::nil());
        assert_eq!(half.len(), HALF);
        assert_eq!(
            words(&with(OFFSET as usize, &half)),
            "a pristine file system"
        );
    }

    #[test]
    fn a_device_that_ends_early_is_an_error_not_blank() {
        struct Dead;
        impl ReadAt for Dead {
            fn size(&self) -> u64 {
                1 << 30
            }
            fn sector_size(&self) -> u32 {
                512
            }
            fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
                let cause = std::io::Error::from_raw_os_error(libc::EIO);
                Err(Error::Transfer {
                    action: "read",
                    offset,
                    length: buffer.len() as u64,
                    cause,
                })
            }
        }
        assert!(identify(&mut Dead).is_err());
    }
}
