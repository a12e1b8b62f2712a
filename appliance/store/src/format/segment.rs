//! The frame of a segment: header, footer, trailer (`FORMAT.md` 1.3).

use super::record::Kind;
use super::{ALIGN, Fields, VERSION, seal, unseal};

/// Length of the header in bytes; the first record follows.
pub(crate) const HEADER: u64 = 64;
/// Length of the trailer in bytes.
pub(crate) const TRAILER: u64 = 64;
/// Length of an entry of the footer in bytes.
pub(crate) const ENTRY: u64 = 32;
const MAGIC: &[u8; 8] = b"LARDSEG1";
const END: &[u8; 8] = b"LARDFOOT";

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u32,
    pub(crate) generation: u64,
    /// When it was made, ms since 1970.
    pub(crate) time: u64,
    /// Bytes preallocated.
    pub(crate) size: u64,
}

impl Header {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.time.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        seal(&mut bytes, 60);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = unseal(bytes, 60)?;
        if fields.bytes(8)? != MAGIC || fields.u32()? != VERSION {
            return None;
        }
        let header = Self {
            id: fields.u32()?,
            generation: fields.u64()?,
            time: fields.u64()?,
            size: fields.u64()?,
        };
        fields.zeros(20)?;
        Some(header)
    }
}

/// What the footer keeps of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tag: u64,
    /// Where the record begins, in 16 bytes.
    pub(crate) offset: u32,
    /// Length of the record, in 16 bytes.
    pub(crate) size: u32,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// Length of the file of its own, in 4 KiB, rounded up.
    pub(crate) pages: u32,
    /// Number of the file of its own, or 0.
    pub(crate) file: u64,
}

impl Entry {
    /// Bytes of the file of its own.
    pub(crate) fn large_bytes(&self) -> u64 {
        u64::from(self.pages) * 4096
    }

    /// Bytes that its record and its file take up.
    pub(crate) fn weight(&self) -> u64 {
        u64::from(self.size) * ALIGN + self.large_bytes()
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.tag.to_le_bytes());
        to.extend_from_slice(&self.offset.to_le_bytes());
        to.extend_from_slice(&self.size.to_le_bytes());
        to.extend_from_slice(&[self.kind as u8, self.flags, 0, 0]);
        to.extend_from_slice(&self.pages.to_le_bytes());
        to.extend_from_slice(&self.file.to_le_bytes());
    }

    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let (tag, offset, size) = (fields.u64()?, fields.u32()?, fields.u32()?);
        let (kind, flags) = (Kind::parse(fields.u8()?)?, fields.u8()?);
        fields.zeros(2)?;
        Some(Self {
            tag,
            offset,
            size,
            kind,
            flags,
            pages: fields.u32()?,
            file: fields.u64()?,
        })
    }
}

/// The trailer of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) id: u32,
    pub(crate) count: u32,
    pub(crate) generation: u64,
    /// Offset of the first entry in bytes.
    pub(crate) entries: u64,
    /// End of the records in bytes.
    pub(crate) end: u64,
    /// Time of the newest record.
    pub(crate) time: u64,
    /// CRC of the entries.
    pub(crate) crc: u32,
}

impl Trailer {
    /// Parses the trailer in the last bytes of a file that is `length` bytes long.
    pub(crate) fn parse(bytes: &[u8], length: u64, header: &Header) -> Option<Self> {
        let mut fields = unseal(bytes, 60)?;
        if fields.bytes(8)? != END {
            return None;
        }
        let (id, count) = (fields.u32()?, fields.u32()?);
        let (generation, entries, end) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let time = fields.u64()?;
        fields.zeros(8)?;
        let trailer = Self {
            id,
            count,
            generation,
            entries,
            end,
            time,
            crc: fields.u32()?,
        };
        let whole = entries
            .checked_add(u64::from(count) * ENTRY)?
            .checked_add(TRAILER)?;
        (id == header.id
            && generation == header.generation
            && whole == length
            && (HEADER..=entries).contains(&end))
        .then_some(trailer)
    }

    /// The entries, if their CRC checks and each lies before the end of the records.
    pub(crate) fn entries(&self, bytes: &[u8]) -> Option<Vec<Entry>> {
        if bytes.len() as u64 != u64::from(self.count) * ENTRY || crc32c::crc32c(bytes) != self.crc
        {
            return None;
        }
        let mut fields = Fields(bytes);
        let mut least = HEADER;
        (0..self.count)
            .map(|_| {
                let entry = Entry::parse(&mut fields)?;
                let start = u64::from(entry.offset) * ALIGN;
                let end = start + u64::from(entry.size) * ALIGN;
                let sound = start >= least && end <= self.end && end > start;
                least = end;
                sound.then_some(entry)
            })
            .collect()
    }
}

/// The footer of a segment whose records end at `end`: its entries and its trailer, and where it goes.
pub(crate) fn footer(header: &Header, entries: &[Entry], end: u64, time: u64) -> (u64, Vec<u8>) {
    let at = end.next_multiple_of(64);
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY as usize + TRAILER as usize);
    for entry in entries {
        entry.write(&mut bytes);
    }
    let crc = crc32c::crc32c(&bytes);
    let mut trailer = END.to_vec();
    trailer.extend_from_slice(&header.id.to_le_bytes());
    // A segment of 4 GiB holds fewer.
    trailer.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    trailer.extend_from_slice(&header.generation.to_le_bytes());
    trailer.extend_from_slice(&at.to_le_bytes());
    trailer.extend_from_slice(&end.to_le_bytes());
    trailer.extend_from_slice(&time.to_le_bytes());
    trailer.extend_from_slice(&[0; 8]);
    trailer.extend_from_slice(&crc.to_le_bytes());
    seal(&mut trailer, 60);
    bytes.extend_from_slice(&trailer);
    (at, bytes)
}
