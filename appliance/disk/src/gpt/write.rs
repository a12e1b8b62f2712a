//! Writing a table: never both copies at risk.

use uuid::Uuid;

use super::{
    Copy, ENTRY_COUNT, ENTRY_LENGTH, HEADER_LENGTH, Partition, SIGNATURE, Table, check_copy,
    u32_at, u64_at,
};
use crate::crc32::crc32;
use crate::{Error, ReadAt, Storage};

/// The bytes of one copy and where they go.
pub(crate) struct Rendered {
    /// Byte offset of the entries.
    pub(crate) entries_at: u64,
    /// Entries, whole sectors.
    pub(crate) entries: Vec<u8>,
    /// Byte offset of the header.
    pub(crate) header_at: u64,
    /// Header, one sector.
    pub(crate) header: Vec<u8>,
}

impl Table {
    /// A new table for a disk of `sectors` sectors.
    ///
    /// # Errors
    ///
    /// The disk is too small, or a partition does not fit.
    pub fn new(
        disk_guid: Uuid,
        sector_size: u32,
        sectors: u64,
        partitions: Vec<Partition>,
    ) -> Result<Self, Error> {
        let mut header = vec![0; sector_size as usize];
        header[..8].copy_from_slice(SIGNATURE);
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&(HEADER_LENGTH as u32).to_le_bytes());
        header[56..72].copy_from_slice(&disk_guid.to_bytes_le());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&ENTRY_COUNT.to_le_bytes());
        header[84..88].copy_from_slice(&ENTRY_LENGTH.to_le_bytes());
        let array = entry_sectors(&header);
        header[40..48].copy_from_slice(&(2 + array).to_le_bytes());
        let mut table = Self {
            disk_guid,
            sector_size,
            partitions: Vec::new(),
            last_usable: 0,
            source: Copy::Primary,
            grown: false,
            problems: Vec::new(),
            header,
            entries: vec![0; (ENTRY_COUNT * ENTRY_LENGTH) as usize],
        };
        table.last_usable = table.usable_end(sectors)?;
        for partition in partitions {
            let at = (partition.number as usize).wrapping_sub(1) * ENTRY_LENGTH as usize;
            let Some(entry) = table.entries.get_mut(at..at + ENTRY_LENGTH as usize) else {
                return Err(Error::Table(format!(
                    "it has no number {}",
                    partition.number
                )));
            };
            write_entry(entry, &partition);
            table.partitions.push(partition);
        }
        table.fits(sectors)?;
        Ok(table)
    }

    /// First sector that a partition may use.
    #[must_use]
    pub fn first_usable(&self) -> u64 {
        u64_at(&self.header, 40)
    }

    /// Last sector that a partition may use when the table's second copy is at the end of a disk
    /// of `sectors` sectors.
    ///
    /// # Errors
    ///
    /// The disk is too small for the table.
    pub fn usable_end(&self, sectors: u64) -> Result<u64, Error> {
        sectors
            .checked_sub(entry_sectors(&self.header) + 2)
            .filter(|&end| end >= self.first_usable())
            .ok_or_else(|| Error::Table(format!("{sectors} sectors are too few for it")))
    }

    /// Moves the end of a partition; only [`Table::commit`] writes it.
    ///
    /// # Errors
    ///
    /// There is no such partition, or it would end before it starts.
    pub fn set_last(&mut self, number: u32, last: u64) -> Result<(), Error> {
        let length = u32_at(&self.header, 84) as usize;
        let Some(partition) = self.partitions.iter_mut().find(|p| p.number == number) else {
            return Err(Error::Table(format!("there is no partition {number}")));
        };
        if last < partition.first {
            return Err(Error::Table(format!(
                "partition {number} would end before it starts"
            )));
        }
        partition.last = last;
        let at = (number as usize - 1) * length;
        self.entries[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        Ok(())
    }

    /// Writes the table with its second copy at the end of the disk, so that a power cut at any
    /// moment leaves one whole copy: a copy is overwritten only while the other is whole and
    /// flushed. The protective MBR comes last.
    ///
    /// # Errors
    ///
    /// The table does not fit the disk, or the disk failed.
    pub fn commit(&mut self, disk: &mut dyn Storage) -> Result<(), Error> {
        let sectors = disk.size() / u64::from(self.sector_size);
        self.fits(sectors)?;
        self.last_usable = self.usable_end(sectors)?;
        if self.source == Copy::Backup {
            // The only good copy is the one that goes next, so first make the other one good.
            let end = sectors - 1;
            if let Ok(current) = check_copy(disk, end, sectors) {
                let mut as_it_is = self.clone();
                as_it_is.header = current.header;
                as_it_is.entries = current.entries;
                as_it_is.render(Copy::Primary, sectors).write(disk)?;
                disk.flush()?;
            }
        }
        self.render(Copy::Backup, sectors).write(disk)?;
        disk.flush()?;
        self.render(Copy::Primary, sectors).write(disk)?;
        disk.flush()?;
        self.source = Copy::Primary;
        self.grown = false;
        self.problems.clear();
        if let Some(mbr) = protective_mbr(disk, sectors)? {
            disk.write_at(0, &mbr)?;
            disk.flush()?;
        }
        Ok(())
    }

    /// Whether every partition lies between the two copies.
    fn fits(&self, sectors: u64) -> Result<(), Error> {
        let end = self.usable_end(sectors)?;
        for partition in &self.partitions {
            if partition.first < self.first_usable() || partition.last > end {
                return Err(Error::Table(format!(
                    "partition {} ({:?}, sectors {} to {}) is outside of what it may use ({} to {end})",
                    partition.number,
                    partition.name,
                    partition.first,
                    partition.last,
                    self.first_usable(),
                )));
            }
        }
        Ok(())
    }

    /// The bytes of one copy for a disk of `sectors` sectors.
    pub(crate) fn render(&self, copy: Copy, sectors: u64) -> Rendered {
        let sector = u64::from(self.sector_size);
        let array = entry_sectors(&self.header);
        let (lba, other, entries_lba) = match copy {
            // The array of the first copy need not follow its header directly.
            Copy::Primary if self.source == Copy::Primary => {
                (1, sectors - 1, u64_at(&self.header, 72).max(2))
            }
            Copy::Primary => (1, sectors - 1, 2),
            Copy::Backup => (sectors - 1, 1, sectors - 1 - array),
        };
        let mut header = self.header.clone();
        header[24..32].copy_from_slice(&lba.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - array - 2).to_le_bytes());
        header[72..80].copy_from_slice(&entries_lba.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&self.entries).to_le_bytes());
        header[16..20].fill(0);
        let length = u32_at(&header, 12) as usize;
        let checksum = crc32(&header[..length]);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        let mut entries = self.entries.clone();
        entries.resize((array * sector) as usize, 0);
        Rendered {
            entries_at: entries_lba * sector,
            entries,
            header_at: lba * sector,
            header,
        }
    }
}

impl Rendered {
    fn write(&self, disk: &mut dyn Storage) -> Result<(), Error> {
        disk.write_at(self.entries_at, &self.entries)?;
        disk.write_at(self.header_at, &self.header)
    }
}

/// Sectors that the array of entries takes.
fn entry_sectors(header: &[u8]) -> u64 {
    let bytes = u64::from(u32_at(header, 80)) * u64::from(u32_at(header, 84));
    bytes.div_ceil(header.len() as u64)
}

fn write_entry(entry: &mut [u8], partition: &Partition) {
    entry[..16].copy_from_slice(&partition.type_guid.to_bytes_le());
    entry[16..32].copy_from_slice(&partition.guid.to_bytes_le());
    entry[32..40].copy_from_slice(&partition.first.to_le_bytes());
    entry[40..48].copy_from_slice(&partition.last.to_le_bytes());
    entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
    for (unit, place) in partition
        .name
        .encode_utf16()
        .zip(entry[56..128].chunks_exact_mut(2))
    {
        place.copy_from_slice(&unit.to_le_bytes());
    }
}

/// The protective MBR, if the one on the disk is missing or has the wrong size; a real MBR is left
/// alone.
fn protective_mbr(disk: &mut dyn ReadAt, sectors: u64) -> Result<Option<Vec<u8>>, Error> {
    let old = disk.read_vec(0, disk.sector_size() as usize)?;
    let new = render_mbr(&old, sectors);
    Ok(new.filter(|new| *new != old))
}

/// The first sector `old` as a protective MBR; `None` if it is something else that means something.
pub(crate) fn render_mbr(old: &[u8], sectors: u64) -> Option<Vec<u8>> {
    let blank = old.iter().all(|&byte| byte == 0);
    let protective = old[510..512] == [0x55, 0xaa] && old[446 + 4] == 0xee;
    if !blank && !protective {
        return None;
    }
    let mut new = old.to_vec();
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    if blank {
        // Status, first CHS 0/0/2, type, last CHS.
        new[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        new[510..512].copy_from_slice(&[0x55, 0xaa]);
    }
    // First sector, length; some tools claim all that can be said.
    new[454..458].copy_from_slice(&1u32.to_le_bytes());
    if blank || new[458..462] != [0xff; 4] {
        new[458..462].copy_from_slice(&size.to_le_bytes());
    }
    Some(new)
}
