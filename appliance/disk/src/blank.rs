//! The second disk of a two-disk host: adopted, partitioned, or refused.
//!
//! A disk is partitioned only if it is readable and blank: its first two MiB and its last MiB are
//! zeros (every known signature of a partition table, file system, RAID, LVM or LUKS lies there,
//! and so does the start of what a lost partition table once named). The order of writes lets the
//! next boot, whatever the moment of a power cut, recognise its own work and go on:
//!
//! 1. one sector at 1 MiB, where the partition will start: a superblock that says nothing but
//!    "pristine", with a random UUID; flush;
//! 2. the copy of the table at the end of the disk; flush; the first copy; flush; the protective
//!    MBR; flush. All GUIDs follow from that UUID, so the bytes of the table are known in advance:
//!    a disk on which every sector of the table is either zero or exactly that is our own work.

use uuid::Uuid;

use crate::gpt::{self, Copy, Partition, Table};
use crate::grow::ALIGNMENT;
use crate::superblock::{self, Ext4};
use crate::{CAS_PARTITION, Error, LABEL_CAS, ReadAt, Storage, probe};

/// A smaller disk makes no sense, in bytes.
const SMALLEST: u64 = 16 << 20;
const MIB: usize = 1 << 20;

/// What to do with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a Larder `/cas` already: this partition holds it (or will, it is pristine).
    Adopt(Partition),
    /// It is blank, or we were interrupted: [`partition`] it.
    Partition {
        /// The random UUID that everything follows from, from an interrupted attempt.
        begun: Option<Uuid>,
    },
    /// It holds something else; the reason completes "the disk ...".
    Refuse(String),
}

/// Decides what to do with a whole disk.
///
/// # Errors
///
/// The disk could not be read: nothing is known about it, nothing may be done to it.
pub fn judge(disk: &mut dyn ReadAt) -> Result<Verdict, Error> {
    // A disk that cannot be read must not look like one without a table.
    let start = disk.read_vec(
        0,
        (2 * MIB).min(usize::try_from(disk.size()).unwrap_or(usize::MAX)),
    )?;
    if disk.size() < SMALLEST {
        return Ok(Verdict::Refuse(format!("has only {} bytes", disk.size())));
    }
    let end = disk.read_vec(disk.size() - MIB as u64, MIB)?;
    if let Ok(table) = Table::read(disk) {
        return judge_table(disk, &table);
    }
    let begun = Ext4::parse(&start[MIB + superblock::OFFSET as usize..]);
    if let Some(begun) = begun.filter(|ext4| is_our_beginning(disk, &start, &end, ext4)) {
        return Ok(Verdict::Partition {
            begun: Some(begun.uuid),
        });
    }
    let blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    if blank(&start) && blank(&end) {
        return Ok(Verdict::Partition { begun: None });
    }
    Ok(Verdict::Refuse(match probe::identify(disk)? {
        probe::Content::Blank if !blank(&start) => {
            let at = start.iter().position(|&byte| byte != 0).unwrap_or_default();
            let inner = probe::identify(&mut &start[MIB..])?;
            match inner {
                probe::Content::Blank => format!("is not blank (data at byte {at})"),
                inner => format!("has lost its partition table, but {inner} is at 1 MiB"),
            }
        }
        probe::Content::Blank => "is not blank (data in its last MiB)".into(),
        found => format!("holds {found}"),
    }))
}

fn judge_table(disk: &mut dyn ReadAt, table: &Table) -> Result<Verdict, Error> {
    let Some(partition) = table.by_name(CAS_PARTITION) else {
        return Ok(Verdict::Refuse(format!(
            "holds a partition table with {}",
            table.names()
        )));
    };
    let offset = partition.first * u64::from(disk.sector_size());
    let length = partition.sectors() * u64::from(disk.sector_size());
    let content = probe::identify(&mut Window {
        disk,
        offset,
        length,
    })?;
    Ok(match &content {
        probe::Content::Ext4(ext4) if ext4.is_pristine() || ext4.label == LABEL_CAS => {
            Verdict::Adopt(partition.clone())
        }
        other => Verdict::Refuse(format!("has a partition named cas, but it holds {other}")),
    })
}

/// Partitions a disk that [`judge`] found to be blank or begun. Returns the partition, which is
/// pristine.
///
/// # Errors
///
/// The disk failed; the next boot goes on from where it stopped.
pub fn partition(disk: &mut dyn Storage, begun: Option<Uuid>) -> Result<Partition, Error> {
    let uuid = match begun {
        Some(uuid) => uuid,
        None => {
            let uuid = crate::random_uuid()?;
            let (offset, sector) = pristine_sector(disk.sector_size(), uuid);
            disk.write_at(offset, &sector)?;
            disk.flush()?;
            uuid
        }
    };
    let mut table = table(disk, uuid)?;
    let partition = table.partitions[0].clone();
    table.commit(disk)?;
    Ok(partition)
}

/// The table that a disk gets: one partition over all of it.
fn table(disk: &dyn ReadAt, uuid: Uuid) -> Result<Table, Error> {
    let sector = u64::from(disk.sector_size());
    let sectors = disk.size() / sector;
    let guid = |what: &str| Uuid::new_v5(&uuid, what.as_bytes());
    let empty = Table::new(guid("disk"), disk.sector_size(), sectors, Vec::new())?;
    let align = ALIGNMENT / sector;
    let partition = Partition {
        number: 1,
        type_guid: gpt::TYPE_LINUX,
        guid: guid("cas"),
        first: align,
        last: (empty.usable_end(sectors)? + 1) / align * align - 1,
        attributes: 0,
        name: CAS_PARTITION.into(),
    };
    Table::new(guid("disk"), disk.sector_size(), sectors, vec![partition])
}

/// Offset and bytes of the one sector that marks the partition to come as pristine.
fn pristine_sector(sector_size: u32, uuid: Uuid) -> (u64, Vec<u8>) {
    let sector = u64::from(sector_size);
    let at = MIB as u64 + superblock::OFFSET;
    let start = at / sector * sector;
    let mut bytes = vec![0; (at - start) as usize];
    bytes.extend(superblock::pristine_half(uuid));
    bytes.resize(bytes.len().next_multiple_of(sector_size as usize), 0);
    (start, bytes)
}

/// Whether every sector in the first two MiB and the last MiB is zero or what [`partition`] writes.
fn is_our_beginning(disk: &dyn ReadAt, start: &[u8], end: &[u8], found: &Ext4) -> bool {
    let sector = disk.sector_size() as usize;
    let sectors = disk.size() / sector as u64;
    let Ok(table) = table(disk, found.uuid) else {
        return false;
    };
    let mut expected_start = vec![0; start.len()];
    let mut expected_end = vec![0; end.len()];
    let end_offset = disk.size() - end.len() as u64;
    let mut put = |offset: u64, bytes: &[u8]| {
        let (place, offset) = match offset.checked_sub(end_offset) {
            Some(offset) => (&mut expected_end, offset),
            None => (&mut expected_start, offset),
        };
        if let Some(place) = place.get_mut(offset as usize..offset as usize + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    let (offset, bytes) = pristine_sector(disk.sector_size(), found.uuid);
    put(offset, &bytes);
    for copy in [Copy::Primary, Copy::Backup] {
        let rendered = table.render(copy, sectors);
        put(rendered.entries_at, &rendered.entries);
        put(rendered.header_at, &rendered.header);
    }
    if let Some(mbr) = gpt::render_mbr(&vec![0; sector], sectors) {
        put(0, &mbr);
    }
    let same = |found: &[u8], expected: &[u8]| {
        found
            .chunks(sector)
            .zip(expected.chunks(sector))
            .all(|(found, expected)| found == expected || found.iter().all(|&byte| byte == 0))
    };
    found.is_pristine() && same(start, &expected_start) && same(end, &expected_end)
}

/// A part of a disk.
struct Window<'a> {
    disk: &'a mut dyn ReadAt,
    offset: u64,
    length: u64,
}

impl ReadAt for Window<'_> {
    fn size(&self) -> u64 {
        self.length
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.disk.read_at(self.offset + offset, buffer)
    }
}

#[cfg(test)]
mod tests;
