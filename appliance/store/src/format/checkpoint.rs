//! Checkpoints of the index (`FORMAT.md` 1.7).

use std::io;
use std::ops::ControlFlow;

use super::{ALIGN, Fields, VERSION, seal, unseal};
use crate::disk::{DiskFile, read_exact};
use crate::index::{Place, Slot};

/// Length of the header in bytes.
const HEADER: usize = 128;
/// Most bytes of the payload of a block.
const BLOCK: usize = 1 << 20;
const MAGIC: &[u8; 8] = b"LARDCKP1";

/// The header of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) serial: u64,
    pub(crate) uuid: [u8; 16],
    /// All records before it were durable; none at or after it is in the checkpoint.
    pub(crate) tail: Place,
    /// Segments, epochs, large files, index entries.
    pub(crate) counts: [u64; 4],
}

/// Something that a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A segment that existed: id, generation.
    Segment(u32, u64),
    /// An epoch: number, when it began (s since 1970), where it began (bytes ever written).
    Epoch(u16, u32, u64),
    /// A file of its own: the place of its record, its number, its bytes.
    Large(Place, u64, u64),
    /// An entry of the index.
    Slot(Slot),
}

impl Item {
    fn sort(&self) -> usize {
        match self {
            Self::Segment(..) => 0,
            Self::Epoch(..) => 1,
            Self::Large(..) => 2,
            Self::Slot(_) => 3,
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Segment(id, generation) => {
                to.extend_from_slice(&u64::from(*id).to_le_bytes());
                to.extend_from_slice(&generation.to_le_bytes());
            }
            Self::Epoch(number, time, position) => {
                to.extend_from_slice(&u32::from(*number).to_le_bytes());
                to.extend_from_slice(&time.to_le_bytes());
                to.extend_from_slice(&position.to_le_bytes());
            }
            Self::Large(place, number, bytes) => {
                to.extend_from_slice(&place.segment.to_le_bytes());
                to.extend_from_slice(&place.offset.to_le_bytes());
                to.extend_from_slice(&number.to_le_bytes());
                to.extend_from_slice(&bytes.to_le_bytes());
            }
            Self::Slot(slot) => slot.write(to),
        }
    }

    fn parse(sort: u32, fields: &mut Fields<'_>) -> Option<Self> {
        Some(match sort {
            1 => {
                let id = fields.u32()?;
                fields.zeros(4)?;
                Self::Segment(id, fields.u64()?)
            }
            2 => {
                let number = fields.u16()?;
                fields.zeros(2)?;
                Self::Epoch(number, fields.u32()?, fields.u64()?)
            }
            3 => {
                let place = Place {
                    segment: fields.u32()?,
                    offset: fields.u32()?,
                };
                Self::Large(place, fields.u64()?, fields.u64()?)
            }
            4 => Self::Slot(Slot::parse(fields)?),
            _ => return None,
        })
    }
}

/// Writes a checkpoint; the header last, so that there is none before all of it is there.
pub(crate) struct Writer<'a> {
    file: &'a dyn DiskFile,
    header: Header,
    at: u64,
    sort: usize,
    block: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, header: Header) -> Self {
        Self {
            file,
            header: Header {
                counts: [0; 4],
                ..header
            },
            at: HEADER as u64,
            sort: 0,
            block: Vec::with_capacity(BLOCK + 12),
        }
    }

    pub(crate) fn push(&mut self, item: Item) -> io::Result<()> {
        if item.sort() != self.sort || self.block.len() + Slot::LENGTH > BLOCK {
            self.write_block()?;
            self.sort = item.sort();
        }
        if self.block.is_empty() {
            self.block.resize(12, 0);
        }
        item.write(&mut self.block);
        self.header.counts[self.sort] += 1;
        Ok(())
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.len() <= 12 {
            return Ok(());
        }
        let length = (self.block.len() - 12) as u32;
        self.block[..4].copy_from_slice(&length.to_le_bytes());
        self.block[8..12].copy_from_slice(&(self.sort as u32 + 1).to_le_bytes());
        let crc = crc32c::crc32c(&self.block[8..]);
        self.block[4..8].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(&self.block, self.at)?;
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Writes the rest and the header; the caller makes it durable.
    pub(crate) fn finish(mut self) -> io::Result<Header> {
        self.write_block()?;
        self.file.set_length(self.at)?;
        self.file.write_at(&self.header.to_bytes(), 0)?;
        Ok(self.header)
    }
}

impl Header {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        bytes.extend_from_slice(&self.uuid);
        bytes.extend_from_slice(&self.tail.segment.to_le_bytes());
        bytes.extend_from_slice(&self.tail.offset.to_le_bytes());
        for count in self.counts {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        seal(&mut bytes, HEADER - 4);
        bytes
    }

    /// Parses the header at the start of a checkpoint.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = unseal(bytes, HEADER - 4)?;
        if fields.bytes(8)? != MAGIC || fields.u32()? != VERSION {
            return None;
        }
        fields.zeros(4)?;
        let (serial, uuid) = (fields.u64()?, fields.array()?);
        let tail = Place {
            segment: fields.u32()?,
            offset: fields.u32()?,
        };
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = fields.u64()?;
        }
        Some(Self {
            serial,
            uuid,
            tail,
            counts,
        })
    }

    /// Reads the header of a file.
    pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER];
        let read = file.read_at(&mut bytes, 0)?;
        Ok(Self::parse(&bytes[..read]))
    }
}

/// Calls `each` for every item of every block that checks, until it breaks; whether all items that
/// the header counts were there.
pub(crate) fn read(
    file: &dyn DiskFile,
    header: &Header,
    mut each: impl FnMut(Item) -> ControlFlow<()>,
) -> io::Result<bool> {
    let mut counts = [0; 4];
    let (mut at, length) = (HEADER as u64, file.length()?);
    while at + 12 <= length {
        let frame = read_exact(file, at, 12)?;
        let mut fields = Fields(&frame);
        let (Some(size), Some(crc)) = (fields.u32(), fields.u32()) else {
            break;
        };
        if size as usize > BLOCK || at + 12 + u64::from(size) > length {
            break;
        }
        let block = read_exact(file, at + 8, size as usize + 4)?;
        at += 12 + u64::from(size);
        if crc32c::crc32c(&block) != crc {
            continue;
        }
        for item in items(&block) {
            counts[item.sort()] += 1;
            if each(item).is_break() {
                return Ok(false);
            }
        }
    }
    Ok(counts == header.counts)
}

/// The items of a block, after its CRC.
fn items(block: &[u8]) -> impl Iterator<Item = Item> {
    let mut fields = Fields(block);
    let sort = fields.u32().unwrap_or(0);
    std::iter::from_fn(move || {
        if fields.0.is_empty() {
            return None;
        }
        let item = Item::parse(sort, &mut fields)?;
        if let Item::Slot(slot) = &item {
            // Nothing may point before the header of a segment.
            if slot.place.byte() < super::segment::HEADER || slot.bytes() < ALIGN {
                return None;
            }
        }
        Some(item)
    })
}
