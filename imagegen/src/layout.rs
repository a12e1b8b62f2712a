//! How a disk of some size is laid out: what `build --disk-size` and `flash` share.

use formats::gpt::{Disks, Request, SectorSize};
use formats::verity::RootHash;

/// Size of the state partition of image files and small disks, in bytes.
pub const STATE_SMALL: u64 = 1 << 30;
/// Size of the state partition of all other disks, in bytes.
pub const STATE_LARGE: u64 = 8 << 30;
/// Disks of this size and more are not small, in bytes.
pub const LARGE_DISK: u64 = 32 << 30;
/// Least size of `/cas`, in bytes: what its pristine file system takes in the image.
pub const CAS_MIN: u64 = 64 << 20;

/// Size of the state partition on a disk of `disk_size` bytes.
pub fn state_size(disk_size: u64) -> u64 {
    if disk_size >= LARGE_DISK {
        STATE_LARGE
    } else {
        STATE_SMALL
    }
}

/// The layout of a disk of `disk_size` bytes: `/cas`, if it is on this disk, gets what is left.
/// `seed` is the image id for an image file, and something random for a machine of its own.
pub fn request(
    disk_size: u64,
    sector: SectorSize,
    disks: Disks,
    seed: &str,
    version: &str,
    root_hash: RootHash,
) -> Request {
    Request {
        disk_size,
        sector,
        disks,
        state_size: state_size(disk_size),
        cas_min: CAS_MIN,
        seed: seed.into(),
        version: version.into(),
        root_hash,
    }
}

#[cfg(test)]
mod tests {
    use formats::gpt::{Layout, Role};

    use super::*;

    #[test]
    fn state_follows_the_disk_and_cas_takes_the_rest() {
        for (disk, state) in [
            (3u64 << 30, STATE_SMALL),
            (LARGE_DISK - 512, STATE_SMALL),
            (LARGE_DISK, STATE_LARGE),
            (2 << 40, STATE_LARGE),
        ] {
            for sector in [SectorSize::S512, SectorSize::S4096] {
                let disk = disk / 4096 * 4096;
                let request = request(disk, sector, Disks::One, "x", "1", RootHash([1; 32]));
                let layout = Layout::new(&request).unwrap();
                let size = |role| layout.get(role).unwrap().size;
                // Cut to whole sectors of 4096 bytes, the second disk is a small one still.
                assert_eq!(size(Role::State), state);
                let used: u64 = layout.partitions.iter().map(|p| p.size).sum();
                assert!(disk - used <= 3 << 20, "{disk}: {used}");
            }
        }
    }
}
