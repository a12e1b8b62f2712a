//! GPT: the partitions of a Larder disk as data, the table that says so, and a tolerant reader.
//!
//! [`Layout::new`] and [`Layout::cas_disk`] compute where partitions lie; [`Layout::encode`] gives
//! the bytes of both tables (made by the crate `gpt`); [`read()`](read()) reads any disk's tables
//! and names every defect of them with its offset. Sizes and offsets are bytes throughout.

mod layout;
mod read;
mod write;

use uuid::{Uuid, uuid};

pub use layout::{Disks, Layout, LayoutError, Partition, Request};
pub use read::{Copy, Defect, Entry, Header, ReadError, Table, fuzz, read};
pub use write::WriteError;

/// All partitions begin and end at a multiple of this many bytes.
pub const ALIGNMENT: u64 = MIB;

const MIB: u64 = 1 << 20;

/// Bytes of a logical block of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SectorSize {
    /// 512 bytes: nearly all disks, and all image files.
    #[default]
    S512,
    /// 4096 bytes ("4Kn").
    S4096,
}

impl SectorSize {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::S512 => 512,
            Self::S4096 => 4096,
        }
    }

    /// From a number of bytes, if it is one of both.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self::S512),
            4096 => Some(Self::S4096),
            _ => None,
        }
    }

    /// Sectors of the partition entries: 128 of 128 bytes.
    const fn entry_sectors(self) -> u64 {
        128 * 128 / self.bytes()
    }
}

/// What a partition of a Larder disk is for. The order is that of the table, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reserved, empty: room for a BIOS boot loader.
    Bios,
    /// The EFI system partition.
    Esp,
    /// Root of slot a.
    RootA,
    /// Hash tree of slot a.
    RootAVerity,
    /// Root of slot b.
    RootB,
    /// Hash tree of slot b.
    RootBVerity,
    /// `/var`.
    State,
    /// `/cas`.
    Cas,
}

impl Role {
    /// All, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Bios,
        Self::Esp,
        Self::RootA,
        Self::RootAVerity,
        Self::RootB,
        Self::RootBVerity,
        Self::State,
        Self::Cas,
    ];

    /// Name in messages, and what its GUID is derived from.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Esp => "ESP",
            Self::RootA => "root-a",
            Self::RootAVerity => "root-a-verity",
            Self::RootB => "root-b",
            Self::RootBVerity => "root-b-verity",
            Self::State => "state",
            Self::Cas => "cas",
        }
    }

    /// Type GUID (UEFI, and the Discoverable Partitions Specification for x86-64). State and
    /// `/cas` are plain Linux data, which nothing mounts by itself.
    pub const fn type_guid(self) -> Uuid {
        match self {
            Self::Bios => uuid!("21686148-6449-6e6f-744e-656564454649"),
            Self::Esp => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            Self::RootA | Self::RootB => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            Self::RootAVerity | Self::RootBVerity => {
                uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")
            }
            Self::State | Self::Cas => uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
        }
    }

    /// Attribute bits: the sealed ones are read-only (bit 60 of the Discoverable Partitions
    /// Specification).
    pub const fn attributes(self) -> u64 {
        match self {
            Self::RootA | Self::RootAVerity | Self::RootB | Self::RootBVerity => 1 << 60,
            Self::Bios | Self::Esp | Self::State | Self::Cas => 0,
        }
    }
}

/// PARTLABEL of a slot that holds nothing yet.
pub const EMPTY_SLOT: &str = "_empty";

/// Namespace of all GUIDs that are derived from an image's or machine's seed.
const NAMESPACE: Uuid = uuid!("6b8f0c1e-27c4-5d0b-9a55-1d3a6f2c8e70");

/// The GUID for `name` under `seed`: `seed` is the image id for an image, something random for a
/// machine of its own; `name` is [`Role::name`], or `disk`.
pub fn derived_guid(seed: &str, name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{seed}/{name}").as_bytes())
}

/// GUID as on the disk: the first three fields little-endian.
fn guid_from_disk(bytes: &[u8]) -> Uuid {
    let mut array = [0; 16];
    array.copy_from_slice(&bytes[..16]);
    Uuid::from_bytes_le(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bios_boot_type_spells_what_everybody_expects() {
        assert_eq!(&Role::Bios.type_guid().to_bytes_le(), b"Hah!IdontNeedEFI");
        assert_eq!(guid_from_disk(b"Hah!IdontNeedEFI"), Role::Bios.type_guid());
    }

    #[test]
    fn derived_guids_differ_by_seed_and_name_and_stay() {
        assert_eq!(
            derived_guid("larder", "ESP").to_string(),
            "a7b3458c-12b7-50be-9ada-bf2c5348a7f6"
        );
        assert_ne!(derived_guid("larder", "ESP"), derived_guid("larder", "cas"));
        assert_ne!(derived_guid("larder", "ESP"), derived_guid("other", "ESP"));
    }
}
