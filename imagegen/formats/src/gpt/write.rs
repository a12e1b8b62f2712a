//! The bytes of both tables.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use ::gpt::disk::LogicalBlockSize;
use ::gpt::mbr::ProtectiveMBR;
use ::gpt::partition::Partition as Entry;
use ::gpt::partition_types::{OperatingSystem, Type};

use super::{Layout, SectorSize};
use crate::region::WriteAt;

/// Why tables cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The crate `gpt` refuses the partitions.
    #[error("the partition table cannot be made: {0}")]
    Encode(String),
    /// The disk refuses.
    #[error("writing the partition table at byte {offset} failed")]
    Write {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

impl Layout {
    /// What to write, and where: (0, protective MBR and primary table) and (…, backup table). The
    /// ranges hold nothing else, and end with the last used byte.
    ///
    /// # Errors
    /// [`WriteError::Encode`].
    pub fn encode(&self) -> Result<[(u64, Vec<u8>); 2], WriteError> {
        let refused = |what: &dyn std::fmt::Display| WriteError::Encode(what.to_string());
        let block_size = match self.sector {
            SectorSize::S512 => LogicalBlockSize::Lb512,
            SectorSize::S4096 => LogicalBlockSize::Lb4096,
        };
        let sector = self.sector.bytes();
        let mut disk = Ends::new(self.disk_size, self.sector);
        // 0xFFFF_FFFF stands for every size that does not fit.
        let protected = (self.disk_size / sector).saturating_sub(1);
        ProtectiveMBR::with_lb_size(u32::try_from(protected).unwrap_or(u32::MAX))
            .overwrite_lba0(&mut disk)
            .map_err(|e| refused(&e))?;
        let mut table = ::gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(block_size)
            .create_from_device(disk, Some(self.disk_guid))
            .map_err(|e| refused(&e))?;
        // Numbers are 1, 2, 3 … without gaps: the crate writes used entries one after the other.
        let entries: BTreeMap<u32, Entry> = self
            .partitions
            .iter()
            .map(|p| {
                let entry = Entry {
                    part_type_guid: Type {
                        guid: p.role.type_guid(),
                        os: OperatingSystem::None,
                    },
                    part_guid: p.guid,
                    first_lba: p.start / sector,
                    last_lba: p.end() / sector - 1,
                    flags: p.role.attributes(),
                    name: p.label.clone(),
                };
                (p.number, entry)
            })
            .collect();
        table.update_partitions(entries).map_err(|e| refused(&e))?;
        let disk = table.write().map_err(|e| refused(&e))?;
        Ok([(0, disk.head), (disk.tail_start, disk.tail)])
    }

    /// Writes protective MBR and both tables to `disk`, the backup first, so that a table that can
    /// be found is complete.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write<W: WriteAt + ?Sized>(&self, disk: &W) -> Result<(), WriteError> {
        for (offset, bytes) in self.encode()?.iter().rev() {
            disk.write_all_at(bytes, *offset)
                .map_err(|source| WriteError::Write {
                    offset: *offset,
                    source,
                })?;
        }
        Ok(())
    }
}

/// A disk of which only both ends exist: where the tables are.
#[derive(Debug)]
struct Ends {
    size: u64,
    at: u64,
    head: Vec<u8>,
    tail_start: u64,
    tail: Vec<u8>,
}

impl Ends {
    fn new(size: u64, sector: SectorSize) -> Self {
        let entries = sector.entry_sectors();
        let tail = (1 + entries) * sector.bytes();
        Self {
            size,
            at: 0,
            head: vec![0; ((2 + entries) * sector.bytes()) as usize],
            tail_start: size.saturating_sub(tail),
            tail: vec![0; tail as usize],
        }
    }

    /// The bytes at the current position, to the end of the part that it is in.
    fn here(&mut self) -> io::Result<&mut [u8]> {
        let outside = || io::Error::other(format!("byte {} is not the table's", self.at));
        let (part, start) = if self.at >= self.tail_start {
            (&mut self.tail, self.tail_start)
        } else {
            (&mut self.head, 0)
        };
        let offset = usize::try_from(self.at - start).unwrap_or(usize::MAX);
        part.get_mut(offset..).ok_or_else(outside)
    }
}

impl Read for Ends {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut from = &*self.here()?;
        let count = from.read(buf)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Ends {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut to = self.here()?;
        let count = to.write(buf)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Ends {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
