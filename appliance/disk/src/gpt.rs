//! Partition tables (GPT, UEFI specification 2.10, chapter 5): a tolerant reader and a writer that
//! a power cut cannot hurt.
//!
//! The reader takes the first copy, and the copy at the end of the disk when the first is bad; it
//! needs no kernel and no udev. It does not judge overlaps, and hybrid MBRs are none of its
//! business. The writer ([`Table::commit`]) rewrites a table that was read or made here; it keeps
//! every entry in its slot (the `gpt` crate moves used entries together) and everything in the
//! header that it does not know.

mod write;

pub(crate) use write::render_mbr;

use uuid::Uuid;

use crate::crc32::crc32;
use crate::{Error, ReadAt};

/// Type of an EFI system partition.
pub const TYPE_ESP: Uuid = Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
/// Type of `/cas`: Linux data that nothing mounts by itself.
pub const TYPE_LINUX: Uuid = Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4);

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Bytes of a header of revision 1.0 that mean something.
const HEADER_LENGTH: usize = 92;
/// Entries of a table that we make: 128 of 128 bytes, as everybody does.
const ENTRY_COUNT: u32 = 128;
const ENTRY_LENGTH: u32 = 128;
/// An array of entries longer than this is not believed, in bytes.
const ENTRIES_LIMIT: usize = 1 << 20;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Uuid,
    /// Its own identity (PARTUUID).
    pub guid: Uuid,
    /// First sector.
    pub first: u64,
    /// Last sector, which belongs to it.
    pub last: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Its name (PARTLABEL).
    pub name: String,
}

impl Partition {
    /// Number of sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// One of the two copies of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the start of the disk.
    Primary,
    /// At its end.
    Backup,
}

/// A partition table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Identity of the disk.
    pub disk_guid: Uuid,
    /// Size of a logical sector in bytes.
    pub sector_size: u32,
    /// Partitions in order of their numbers.
    pub partitions: Vec<Partition>,
    /// Last sector that a partition may use.
    pub last_usable: u64,
    /// Which copy was good (the first if both were).
    pub source: Copy,
    /// Whether the disk is larger than it was when the table was made: its second copy is not at
    /// the end.
    pub grown: bool,
    /// What is wrong with the table as it lies on the disk, in words; empty if nothing is.
    pub problems: Vec<String>,
    /// Header bytes as read, one sector.
    header: Vec<u8>,
    /// Entries as read; their count and length are in the header.
    entries: Vec<u8>,
}

/// One copy, checked.
struct Checked {
    header: Vec<u8>,
    entries: Vec<u8>,
}

impl Table {
    /// Reads the table of a disk.
    ///
    /// # Errors
    ///
    /// [`Error::NoTable`] if neither copy is good (it says what is wrong with each). That a copy
    /// could not be read counts as "not good": the other may serve.
    pub fn read(disk: &mut dyn ReadAt) -> Result<Self, Error> {
        let sector_size = disk.sector_size();
        let sectors = disk.size() / u64::from(sector_size.max(1));
        let primary = check_copy(disk, 1, sectors);
        let end = sectors.saturating_sub(1);
        let mut backup_lba = end;
        let mut backup = check_copy(disk, end, sectors);
        if let (Err(_), Err(_)) = (&primary, &backup) {
            // The disk may have grown since; a bad first header may still say where its copy was.
            if let Some(lba) = hinted_backup(disk, sectors)
                && let Ok(found) = check_copy(disk, lba, sectors)
            {
                backup = Ok(found);
                backup_lba = lba;
            }
        }
        let (source, checked, other) = match (primary, backup) {
            (Ok(primary), backup) => (Copy::Primary, primary, backup),
            (Err(primary), Ok(backup)) => (Copy::Backup, backup, Err(primary)),
            (Err(primary), Err(backup)) => {
                return Err(Error::NoTable {
                    primary: format!("the first copy {primary}"),
                    backup: format!("the copy at the end {backup}"),
                });
            }
        };
        let grown = match source {
            Copy::Primary => u64_at(&checked.header, 32) != end,
            Copy::Backup => backup_lba != end,
        };
        let mut problems = Vec::new();
        match (source, &other) {
            // Where the disk ended before, not here.
            (Copy::Primary, _) if grown => {}
            (Copy::Primary, Err(reason)) => problems.push(format!("the copy at the end {reason}")),
            (Copy::Backup, Err(reason)) => problems.push(format!("the first copy {reason}")),
            (_, Ok(other)) => {
                let same = checked.entries == other.entries
                    && u32_at(&checked.header, 84) == u32_at(&other.header, 84)
                    && checked.header[56..72] == other.header[56..72]
                    && checked.header[48..56] == other.header[48..56];
                if !same {
                    problems.push("its two copies differ".into());
                }
            }
        }
        if !grown
            && let Ok(first) = disk.read_vec(0, sector_size as usize)
            && render_mbr(&first, sectors).is_some_and(|right| right != first)
        {
            problems.push("the protective MBR is missing or has the wrong size".into());
        }
        let partitions = partitions(&checked, sectors, &mut problems);
        Ok(Self {
            disk_guid: guid_at(&checked.header, 56),
            sector_size,
            partitions,
            last_usable: u64_at(&checked.header, 48),
            source,
            grown,
            problems,
            header: checked.header,
            entries: checked.entries,
        })
    }

    /// The partition with this identity.
    #[must_use]
    pub fn by_guid(&self, guid: Uuid) -> Option<&Partition> {
        self.partitions
            .iter()
            .find(|partition| partition.guid == guid)
    }

    /// The first partition with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Partition> {
        self.partitions
            .iter()
            .find(|partition| partition.name == name)
    }

    /// The first partition of this type.
    #[must_use]
    pub fn by_type(&self, type_guid: Uuid) -> Option<&Partition> {
        self.partitions
            .iter()
            .find(|partition| partition.type_guid == type_guid)
    }

    /// The names of all partitions, for messages.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self
            .partitions
            .iter()
            .map(|p| format!("{} {:?}", p.number, p.name))
            .collect();
        if names.is_empty() {
            "no partition".into()
        } else {
            names.join(", ")
        }
    }
}

/// Reads and checks the copy whose header is at `lba`; the error completes "the copy ...".
fn check_copy(disk: &mut dyn ReadAt, lba: u64, sectors: u64) -> Result<Checked, String> {
    let sector = disk.sector_size() as usize;
    if !matches!(sector, 512 | 1024 | 2048 | 4096) {
        return Err(format!("is on a disk with sectors of {sector} bytes"));
    }
    if sectors < 6 || lba >= sectors {
        return Err("has no room on the disk".into());
    }
    let mut header = disk
        .read_vec(lba * sector as u64, sector)
        .map_err(|error| format!("is not readable ({error})"))?;
    if &header[..8] != SIGNATURE {
        return Err("is not there".into());
    }
    let length = u32_at(&header, 12) as usize;
    if !(HEADER_LENGTH..=sector).contains(&length) {
        return Err(format!("has a header of {length} bytes"));
    }
    let stored = u32_at(&header, 16);
    header[16..20].fill(0);
    let computed = crc32(&header[..length]);
    header[16..20].copy_from_slice(&stored.to_le_bytes());
    if stored != computed {
        return Err("has a header with a wrong checksum".into());
    }
    if u64_at(&header, 24) != lba {
        return Err("belongs elsewhere on the disk".into());
    }
    let first = u64_at(&header, 72);
    let count = u32_at(&header, 80) as usize;
    let each = u32_at(&header, 84) as usize;
    let total = count.saturating_mul(each);
    if each < 128 || !each.is_multiple_of(8) || count == 0 || total > ENTRIES_LIMIT {
        return Err(format!("claims {count} entries of {each} bytes"));
    }
    let length = total.div_ceil(sector) as u64;
    if first < 2 || first.checked_add(length).is_none_or(|end| end > sectors) {
        return Err(format!(
            "has its entries at sector {first}, which is not on the disk"
        ));
    }
    let entries = disk
        .read_vec(first * sector as u64, total)
        .map_err(|error| format!("has unreadable entries ({error})"))?;
    if crc32(&entries) != u32_at(&header, 88) {
        return Err("has entries with a wrong checksum".into());
    }
    Ok(Checked { header, entries })
}

/// Where a bad first header says that its copy is.
fn hinted_backup(disk: &mut dyn ReadAt, sectors: u64) -> Option<u64> {
    let sector = u64::from(disk.sector_size());
    let header = disk.read_vec(sector, HEADER_LENGTH).ok()?;
    let lba = u64_at(&header, 32);
    (&header[..8] == SIGNATURE && lba > 1 && lba < sectors).then_some(lba)
}

fn partitions(copy: &Checked, sectors: u64, problems: &mut Vec<String>) -> Vec<Partition> {
    let length = u32_at(&copy.header, 84) as usize;
    let mut found = Vec::new();
    for (index, entry) in copy.entries.chunks_exact(length).enumerate() {
        let number = index as u32 + 1;
        let type_guid = guid_at(entry, 0);
        if type_guid.is_nil() {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        if first > last || last >= sectors {
            problems.push(format!(
                "partition {number} reaches from sector {first} to {last}, the disk has {sectors}"
            ));
            continue;
        }
        let name: Vec<u16> = entry[56..128]
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .take_while(|&unit| unit != 0)
            .collect();
        found.push(Partition {
            number,
            type_guid,
            guid: guid_at(entry, 16),
            first,
            last,
            attributes: u64_at(entry, 48),
            name: String::from_utf16_lossy(&name),
        });
    }
    found
}

/// A GUID as it lies on the disk: the first three fields little-endian, the rest as written.
fn guid_at(bytes: &[u8], at: usize) -> Uuid {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes_le(raw)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// Fuzz target: no bytes may panic the reader.
pub fn fuzz(bytes: &[u8]) {
    let mut disk = bytes;
    if let Ok(table) = Table::read(&mut disk) {
        for partition in &table.partitions {
            assert!(partition.first <= partition.last);
        }
    }
}

#[cfg(test)]
mod tests;
