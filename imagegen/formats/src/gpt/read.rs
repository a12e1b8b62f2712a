//! Reading a partition table, whatever state it is in.

use std::io;

use uuid::Uuid;

use super::{SectorSize, guid_from_disk};
use crate::region::ReadAt;

/// More entries than this no table has; the standard says 128.
const MOST_ENTRIES: u32 = 1024;

/// The two copies of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// In the second sector.
    Primary,
    /// In the last sector.
    Backup,
}

impl std::fmt::Display for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

/// A header and its entries, both with a good CRC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// GUID of the disk.
    pub disk_guid: Uuid,
    /// Where this header is, in sectors.
    pub own_lba: u64,
    /// Where it says that the other one is.
    pub other_lba: u64,
    /// First sector for partitions.
    pub first_usable: u64,
    /// Last sector for partitions.
    pub last_usable: u64,
    /// First sector of the entries.
    pub entries_lba: u64,
    /// The used entries.
    pub entries: Vec<Entry>,
}

/// A used entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1.
    pub number: u32,
    /// Type GUID.
    pub type_guid: Uuid,
    /// PARTUUID.
    pub guid: Uuid,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// PARTLABEL; what is no UTF-16 is replaced.
    pub label: String,
}

impl Entry {
    /// First byte after it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// Something wrong with a table. Each names the byte on the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// No protective MBR in sector 0.
    #[error("byte {offset}: no protective MBR")]
    ProtectiveMbr {
        /// Where it should be.
        offset: u64,
    },
    /// A copy of the table is not there or not readable.
    #[error("byte {offset}: the {copy} table: {what}")]
    Header {
        /// Which.
        copy: Copy,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The copies differ.
    #[error("byte {offset}: the backup table differs from the primary one: {what}")]
    Differ {
        /// Where the backup header is.
        offset: u64,
        /// In what.
        what: &'static str,
    },
    /// The backup is not in the last sector: the disk has grown (or the file was cut).
    #[error("byte {offset}: the backup table is not at the end of the disk, byte {end}")]
    NotAtEnd {
        /// Where it is.
        offset: u64,
        /// Where it should be.
        end: u64,
    },
    /// A partition ends before it starts, or lies outside of what the header allows.
    #[error("byte {offset}: partition {number} ({label}) is out of bounds")]
    OutOfBounds {
        /// Its entry.
        offset: u64,
        /// Its number.
        number: u32,
        /// Its label.
        label: String,
    },
    /// Two partitions share sectors.
    #[error("byte {offset}: partitions {first} and {second} overlap")]
    Overlap {
        /// Where on the disk they do.
        offset: u64,
        /// One number.
        first: u32,
        /// The other.
        second: u32,
    },
    /// Two partitions have one PARTUUID.
    #[error("byte {offset}: partitions {first} and {second} have the same GUID")]
    SameGuid {
        /// Entry of the second.
        offset: u64,
        /// One number.
        first: u32,
        /// The other.
        second: u32,
    },
}

/// What a disk says of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its sectors.
    pub sector: SectorSize,
    /// Which copy [`Self::header`] is.
    pub copy: Copy,
    /// The primary table, or the backup where that is broken.
    pub header: Header,
    /// What is wrong; empty for a table that is all right.
    pub defects: Vec<Defect>,
}

impl Table {
    /// The used entries.
    pub fn partitions(&self) -> &[Entry] {
        &self.header.entries
    }

    /// The first partition with that label.
    pub fn by_label(&self, label: &str) -> Option<&Entry> {
        self.partitions().iter().find(|entry| entry.label == label)
    }

    /// The partition with that PARTUUID.
    pub fn by_guid(&self, guid: Uuid) -> Option<&Entry> {
        self.partitions().iter().find(|entry| entry.guid == guid)
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Neither copy is good, for either size of sectors.
    #[error("no partition table: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    None(Vec<Defect>),
    /// Reading failed.
    #[error("reading the partition table at byte {offset} failed")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// Reads the tables of `disk`; without `sector`, that of 512 or 4096 bytes for which there is one.
/// One good copy suffices: all that is wrong besides is in [`Table::defects`].
///
/// # Errors
/// [`ReadError`].
pub fn read<D: ReadAt + ?Sized>(disk: &D, sector: Option<SectorSize>) -> Result<Table, ReadError> {
    let size = disk
        .size()
        .map_err(|source| ReadError::Read { offset: 0, source })?;
    let candidates = match sector {
        Some(sector) => vec![sector],
        None => vec![SectorSize::S512, SectorSize::S4096],
    };
    let mut defects = Vec::new();
    for sector in candidates {
        match read_as(disk, size, sector)? {
            Ok(table) => return Ok(table),
            Err(more) => defects.extend(more),
        }
    }
    Err(ReadError::None(defects))
}

fn read_as<D: ReadAt + ?Sized>(
    disk: &D,
    size: u64,
    sector: SectorSize,
) -> Result<Result<Table, Vec<Defect>>, ReadError> {
    let bytes = sector.bytes();
    let sectors = size / bytes;
    if sectors < 3 {
        return Ok(Err(vec![Defect::Header {
            copy: Copy::Primary,
            offset: 0,
            what: format!("the disk has {size} bytes"),
        }]));
    }
    let mut defects = Vec::new();
    let mut mbr = [0; 512];
    get(disk, &mut mbr, 0)?;
    if mbr[510..] != [0x55, 0xAA] || (0..4).all(|n| mbr[446 + 16 * n + 4] != 0xEE) {
        defects.push(Defect::ProtectiveMbr { offset: 446 });
    }
    let primary = header(disk, sectors, sector, Copy::Primary, 1)?;
    // The last sector first; if the disk has grown, where the primary says.
    let mut backup = header(disk, sectors, sector, Copy::Backup, sectors - 1)?;
    if let (Ok(primary), Err(_)) = (&primary, &backup)
        && primary.other_lba < sectors - 1
        && primary.other_lba > 1
    {
        backup = header(disk, sectors, sector, Copy::Backup, primary.other_lba)?;
    }
    let (copy, header) = match (primary, backup) {
        (Ok(primary), Ok(backup)) => {
            compare(&primary, &backup, bytes, &mut defects);
            if backup.own_lba != sectors - 1 {
                defects.push(Defect::NotAtEnd {
                    offset: backup.own_lba * bytes,
                    end: (sectors - 1) * bytes,
                });
            }
            (Copy::Primary, primary)
        }
        (Ok(primary), Err(defect)) => {
            defects.push(defect);
            (Copy::Primary, primary)
        }
        (Err(defect), Ok(backup)) => {
            defects.push(defect);
            (Copy::Backup, backup)
        }
        (Err(first), Err(second)) => {
            defects.extend([first, second]);
            return Ok(Err(defects));
        }
    };
    check_entries(&header, size, bytes, &mut defects);
    Ok(Ok(Table {
        sector,
        copy,
        header,
        defects,
    }))
}

fn get<D: ReadAt + ?Sized>(disk: &D, out: &mut [u8], offset: u64) -> Result<(), ReadError> {
    disk.read_exact_at(out, offset)
        .map_err(|source| ReadError::Read { offset, source })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The header in sector `lba` and its entries.
fn header<D: ReadAt + ?Sized>(
    disk: &D,
    sectors: u64,
    sector: SectorSize,
    copy: Copy,
    lba: u64,
) -> Result<Result<Header, Defect>, ReadError> {
    let size = sector.bytes();
    let start = lba * size;
    let bad = |offset: u64, what: String| {
        Ok(Err(Defect::Header {
            copy,
            offset: start + offset,
            what,
        }))
    };
    let mut bytes = vec![0; size as usize];
    get(disk, &mut bytes, start)?;
    if &bytes[..8] != b"EFI PART" {
        return bad(0, "no signature".into());
    }
    if u32_at(&bytes, 8) != 0x1_0000 {
        return bad(8, format!("revision {:#x}", u32_at(&bytes, 8)));
    }
    let header_size = u32_at(&bytes, 12) as usize;
    if header_size < 92 || header_size > bytes.len() {
        return bad(12, format!("a header of {header_size} bytes"));
    }
    let sum = u32_at(&bytes, 16);
    bytes[16..20].fill(0);
    if crc32(&bytes[..header_size]) != sum {
        return bad(16, "the header's checksum is wrong".into());
    }
    if u64_at(&bytes, 24) != lba {
        return bad(
            24,
            format!("it says that it is in sector {}", u64_at(&bytes, 24)),
        );
    }
    let entries_lba = u64_at(&bytes, 72);
    let (count, entry_size) = (u32_at(&bytes, 80), u32_at(&bytes, 84));
    if count > MOST_ENTRIES || !(128..=1024).contains(&entry_size) || entry_size % 8 != 0 {
        return bad(80, format!("{count} entries of {entry_size} bytes"));
    }
    let table_bytes = u64::from(count) * u64::from(entry_size);
    let table_end = table_bytes
        .div_ceil(size)
        .checked_add(entries_lba)
        .filter(|end| entries_lba > 1 && *end <= sectors);
    if table_end.is_none() {
        return bad(72, format!("entries in sector {entries_lba}"));
    }
    let mut table = vec![0; table_bytes as usize];
    get(disk, &mut table, entries_lba * size)?;
    if crc32(&table) != u32_at(&bytes, 88) {
        return bad(88, "the checksum of the entries is wrong".into());
    }
    let entries = table
        .chunks_exact(entry_size as usize)
        .zip(1..)
        .filter(|(entry, _)| entry[..16] != [0; 16])
        .map(|(entry, number)| entry_of(entry, number, size))
        .collect();
    Ok(Ok(Header {
        disk_guid: guid_from_disk(&bytes[56..72]),
        own_lba: lba,
        other_lba: u64_at(&bytes, 32),
        first_usable: u64_at(&bytes, 40),
        last_usable: u64_at(&bytes, 48),
        entries_lba,
        entries,
    }))
}

fn entry_of(bytes: &[u8], number: u32, sector: u64) -> Entry {
    let (first, last) = (u64_at(bytes, 32), u64_at(bytes, 40));
    let units: Vec<u16> = bytes[56..128]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|&unit| unit != 0)
        .collect();
    // One that ends before it starts has the size 0 and is reported; nothing here overflows.
    let len = last.checked_add(1).and_then(|end| end.checked_sub(first));
    Entry {
        number,
        type_guid: guid_from_disk(bytes),
        guid: guid_from_disk(&bytes[16..]),
        start: first.saturating_mul(sector),
        size: len.unwrap_or(0).saturating_mul(sector),
        attributes: u64_at(bytes, 48),
        label: String::from_utf16_lossy(&units),
    }
}

fn compare(primary: &Header, backup: &Header, sector: u64, defects: &mut Vec<Defect>) {
    for (same, what) in [
        (primary.disk_guid == backup.disk_guid, "the disk's GUID"),
        (primary.entries == backup.entries, "the partitions"),
        (
            (primary.first_usable, primary.last_usable)
                == (backup.first_usable, backup.last_usable),
            "the usable sectors",
        ),
        (
            primary.other_lba == backup.own_lba && backup.other_lba == primary.own_lba,
            "where the other one is",
        ),
    ] {
        if !same {
            defects.push(Defect::Differ {
                offset: backup.own_lba * sector,
                what,
            });
        }
    }
}

fn check_entries(header: &Header, size: u64, sector: u64, defects: &mut Vec<Defect>) {
    let entry_offset = |number: u32| {
        header
            .entries_lba
            .saturating_mul(sector)
            .saturating_add(u64::from(number - 1) * 128)
    };
    let usable_start = header.first_usable.saturating_mul(sector);
    let usable_end = header
        .last_usable
        .saturating_add(1)
        .saturating_mul(sector)
        .min(size);
    let mut sorted: Vec<&Entry> = Vec::new();
    for entry in &header.entries {
        if entry.size == 0 || entry.start < usable_start || entry.end() > usable_end {
            defects.push(Defect::OutOfBounds {
                offset: entry_offset(entry.number),
                number: entry.number,
                label: entry.label.clone(),
            });
        } else {
            sorted.push(entry);
        }
    }
    sorted.sort_by_key(|entry| (entry.start, entry.number));
    // Against the one that reaches farthest so far, not only the neighbour.
    let mut farthest: Option<&Entry> = None;
    for entry in sorted {
        if let Some(before) = farthest
            && entry.start < before.end()
        {
            defects.push(Defect::Overlap {
                offset: entry.start,
                first: before.number,
                second: entry.number,
            });
        }
        if farthest.is_none_or(|before| entry.end() > before.end()) {
            farthest = Some(entry);
        }
    }
    let mut by_guid: Vec<&Entry> = header.entries.iter().collect();
    by_guid.sort_by_key(|entry| (entry.guid, entry.number));
    for pair in by_guid.windows(2) {
        if pair[0].guid == pair[1].guid {
            defects.push(Defect::SameGuid {
                offset: entry_offset(pair[1].number),
                first: pair[0].number,
                second: pair[1].number,
            });
        }
    }
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut crc = n as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[n] = crc;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

/// For fuzzing: any bytes as a disk, as they are and with checksums made to fit, which would hide
/// what is behind them.
pub fn fuzz(bytes: &[u8]) {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let _ = read(bytes, Some(sector));
        let mut sealed = bytes.to_vec();
        let primary = sector.bytes() as usize;
        let backup = (sealed.len() / primary).saturating_sub(1) * primary;
        for start in [primary, backup] {
            seal(&mut sealed, start, sector);
        }
        let _ = read(&sealed, Some(sector));
    }
}

/// Puts the right checksums into the header at `start`, as far as there is one.
fn seal(disk: &mut [u8], start: usize, sector: SectorSize) {
    let Some(header) = disk.get(start..start + 512) else {
        return;
    };
    let entries = (u64_at(header, 72) as usize).checked_mul(sector.bytes() as usize);
    let len = (u32_at(header, 80) as usize).checked_mul(u32_at(header, 84) as usize);
    let end = entries.zip(len).and_then(|(at, len)| at.checked_add(len));
    if let Some(table) = entries.zip(end).and_then(|(at, end)| disk.get(at..end)) {
        let sum = crc32(table);
        disk[start + 88..start + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let size = u32_at(&disk[start..], 12) as usize;
    disk[start + 16..start + 20].fill(0);
    if let Some(header) = disk.get(start..start.saturating_add(size)) {
        let sum = crc32(header);
        disk[start + 16..start + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::Layout;

    #[test]
    fn bent_tables_end_in_words() {
        let seeds: Vec<_> = [SectorSize::S512, SectorSize::S4096]
            .map(|sector| {
                let layout = Layout::cas_disk(3 << 20, sector, "seed", 1 << 20).unwrap();
                let [(_, head), (_, tail)] = layout.encode().unwrap();
                // The backup is looked for in the last sector, whatever the primary one says.
                [head, tail].concat()
            })
            .into();
        // The seeds themselves go the whole way.
        let mut sealed = seeds[0].clone();
        seal(&mut sealed, 512, SectorSize::S512);
        assert!(read(&sealed[..], None).is_ok());
        crate::fuzzing::mutate_for(std::time::Duration::from_secs(1), &seeds, fuzz);
    }
}
