//! Where the partitions lie.

use uuid::Uuid;

use super::{ALIGNMENT, EMPTY_SLOT, MIB, Role, SectorSize, derived_guid};
use crate::verity::RootHash;

/// The two layouts that a machine can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Disks {
    /// `/cas` is the last partition of the one disk.
    #[default]
    One,
    /// `/cas` is the only partition of a second disk, see [`Layout::cas_disk`].
    Two,
}

/// What a layout depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Size of the disk in bytes, a multiple of its sectors.
    pub disk_size: u64,
    /// Its sectors.
    pub sector: SectorSize,
    /// Whether `/cas` is on this disk.
    pub disks: Disks,
    /// Size of the state partition in bytes (rounded up to the alignment).
    pub state_size: u64,
    /// Least size of `/cas` in bytes (rounded up); it gets what is left.
    pub cas_min: u64,
    /// What the GUIDs derive from, see [`derived_guid`].
    pub seed: String,
    /// Version of the image: labels of slot a.
    pub version: String,
    /// Names the partitions of slot a.
    pub root_hash: RootHash,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub role: Role,
    /// Number in the table, from 1.
    pub number: u32,
    /// PARTLABEL.
    pub label: String,
    /// PARTUUID.
    pub guid: Uuid,
    /// First byte.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Partition {
    /// First byte after it.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// A disk and its partitions, in the order of the table and of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the disk in bytes.
    pub disk_size: u64,
    /// Its sectors.
    pub sector: SectorSize,
    /// GUID of the disk.
    pub disk_guid: Uuid,
    /// The partitions.
    pub partitions: Vec<Partition>,
}

/// Why partitions cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not enough room.
    #[error(
        "a disk of {disk_size} bytes is too small: {what} need at least {needed} bytes ({} MiB)",
        .needed.div_ceil(MIB)
    )]
    TooSmall {
        /// Size of the disk.
        disk_size: u64,
        /// Least size, a multiple of 1 MiB.
        needed: u64,
        /// What for.
        what: &'static str,
    },
    /// The size is no whole number of sectors.
    #[error("a disk of {disk_size} bytes does not consist of sectors of {sector} bytes")]
    NotSectors {
        /// Size of the disk.
        disk_size: u64,
        /// Size of a sector.
        sector: u64,
    },
    /// The table holds 36 UTF-16 units.
    #[error("the partition label {0:?} is longer than the 36 characters of a GPT")]
    Label(String),
}

impl Layout {
    /// The system disk: all partitions of `request`.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(request: &Request) -> Result<Self, LayoutError> {
        let what = match request.disks {
            Disks::One => "the partitions of a Larder disk with /cas",
            Disks::Two => "the partitions of a Larder disk without /cas",
        };
        let usable = usable_end(request.disk_size, request.sector)?;
        let needed = Self::minimum_size(request);
        let too_small = LayoutError::TooSmall {
            disk_size: request.disk_size,
            needed,
            what,
        };
        let mut partitions = Vec::new();
        let mut start = ALIGNMENT;
        for (role, size) in sizes(request) {
            let size = match role {
                Role::Cas => usable
                    .checked_sub(start)
                    .filter(|rest| *rest >= size)
                    .ok_or_else(|| too_small.clone())?,
                _ => size,
            };
            let label = label(role, &request.version);
            // The crate `gpt` would cut it off without a word.
            if label.encode_utf16().count() > 36 {
                return Err(LayoutError::Label(label));
            }
            let guid = match role {
                Role::RootA => request.root_hash.data_partuuid(),
                Role::RootAVerity => request.root_hash.hash_partuuid(),
                other => derived_guid(&request.seed, other.name()),
            };
            partitions.push(Partition {
                role,
                number: partitions.len() as u32 + 1,
                label,
                guid,
                start,
                size,
            });
            start = start.saturating_add(size);
        }
        if start > usable {
            return Err(too_small);
        }
        Ok(Self {
            disk_size: request.disk_size,
            sector: request.sector,
            disk_guid: derived_guid(&request.seed, "disk"),
            partitions,
        })
    }

    /// The second disk of a two-disk machine: one partition `cas`, all of it.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn cas_disk(
        disk_size: u64,
        sector: SectorSize,
        seed: &str,
        cas_min: u64,
    ) -> Result<Self, LayoutError> {
        let usable = usable_end(disk_size, sector)?;
        let least = aligned(cas_min).max(ALIGNMENT);
        if usable < ALIGNMENT.saturating_add(least) {
            return Err(LayoutError::TooSmall {
                disk_size,
                needed: least.saturating_add(2 * ALIGNMENT),
                what: "a disk for /cas",
            });
        }
        Ok(Self {
            disk_size,
            sector,
            disk_guid: derived_guid(seed, "cas-disk"),
            partitions: vec![Partition {
                role: Role::Cas,
                number: 1,
                label: label(Role::Cas, ""),
                guid: derived_guid(seed, Role::Cas.name()),
                start: ALIGNMENT,
                size: usable - ALIGNMENT,
            }],
        })
    }

    /// The smallest disk for `request` (whose `disk_size` does not count), a multiple of 1 MiB.
    pub fn minimum_size(request: &Request) -> u64 {
        // A MiB before, for the table and for alignment, and one after.
        sizes(request)
            .map(|(_, size)| size)
            .fold(2 * ALIGNMENT, u64::saturating_add)
    }

    /// The partition of that role.
    pub fn get(&self, role: Role) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.role == role)
    }
}

/// Roles and sizes in bytes, of `/cas` the least.
fn sizes(request: &Request) -> impl Iterator<Item = (Role, u64)> + '_ {
    Role::ALL.into_iter().filter_map(|role| {
        let size = match role {
            Role::Bios => MIB,
            Role::Esp => match request.sector {
                SectorSize::S512 => 128 * MIB,
                // FAT32 has at least 65525 clusters, here of at least 4096 bytes.
                SectorSize::S4096 => 512 * MIB,
            },
            Role::RootA | Role::RootB => 512 * MIB,
            Role::RootAVerity | Role::RootBVerity => 8 * MIB,
            Role::State => aligned(request.state_size).max(ALIGNMENT),
            Role::Cas if request.disks == Disks::Two => return None,
            Role::Cas => aligned(request.cas_min).max(ALIGNMENT),
        };
        Some((role, size))
    })
}

fn label(role: Role, version: &str) -> String {
    match role {
        Role::RootA => format!("larder_{version}"),
        Role::RootAVerity => format!("larder_{version}_verity"),
        Role::RootB | Role::RootBVerity => EMPTY_SLOT.to_string(),
        Role::Bios | Role::Esp | Role::State | Role::Cas => role.name().to_string(),
    }
}

fn aligned(size: u64) -> u64 {
    size.checked_next_multiple_of(ALIGNMENT)
        .unwrap_or(u64::MAX - ALIGNMENT)
}

/// Where the last partition must end: before the backup table, aligned.
fn usable_end(disk_size: u64, sector: SectorSize) -> Result<u64, LayoutError> {
    if !disk_size.is_multiple_of(sector.bytes()) {
        return Err(LayoutError::NotSectors {
            disk_size,
            sector: sector.bytes(),
        });
    }
    let table = (1 + sector.entry_sectors()) * sector.bytes();
    let end = disk_size.saturating_sub(table);
    Ok(end - end % ALIGNMENT)
}
