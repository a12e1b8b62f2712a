//! Bodies of fuzz targets: no bytes may panic a reader, or be taken for what they are not. `fuzz/` runs
//! them under a fuzzer, `tests/mutants.rs` on changed files of a real volume.
//!
//! Each looks at the bytes as they are and with their checksums made right, as nothing but an enemy or
//! a bug would write them: otherwise little would come past the first checksum.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::disk::{DiskFile, Flush};
use crate::format::record::{FIXED, Head, Parsed, whole};
use crate::format::segment::{HEADER, Header, TRAILER};
use crate::format::superblock::Superblock;
use crate::format::{ALIGN, checkpoint, cleans};
use crate::volume::Segment;

/// All of them.
pub fn all(bytes: &[u8]) {
    record(bytes);
    segment(bytes);
    footer(bytes);
    checkpoint(bytes);
    superblock(bytes);
}

/// A record, wherever it is read from.
pub fn record(bytes: &[u8]) {
    twice(bytes, |bytes| {
        // So that the random half of the segment's generation is right.
        let generation = bytes.get(8..12).map_or(0, |low| {
            u64::from(u32::from_le_bytes([low[0], low[1], low[2], low[3]]))
        });
        if let Parsed::Head(head, length) = Head::parse(bytes, generation) {
            let mut again = Vec::new();
            head.write(generation, &mut again);
            assert_eq!(again, bytes[..length], "a head has one form");
        }
        if let Some((_, size)) = whole(bytes, generation) {
            assert!(size <= (bytes.len() as u64).next_multiple_of(ALIGN));
        }
    });
}

/// A segment that is scanned: it was not sealed, or its footer is damaged.
pub fn segment(bytes: &[u8]) {
    twice(bytes, |bytes| {
        let Some(segment) = opened(bytes) else {
            return;
        };
        let scan = segment.scan().expect("memory can be read");
        let mut end = HEADER;
        for entry in &scan.entries {
            let at = u64::from(entry.offset) * ALIGN;
            assert!(at >= end, "records overlap");
            end = at + u64::from(entry.size) * ALIGN;
            let (head, size) = whole(&bytes[at as usize..], segment.header.generation)
                .expect("what was found is a record");
            assert_eq!((entry.tag, at + size), (head.tag, end));
        }
        assert_eq!(scan.end, end);
    });
}

/// A sealed segment: its trailer and the entries that it names.
pub fn footer(bytes: &[u8]) {
    twice(bytes, |bytes| {
        let Some(segment) = opened(bytes) else {
            return;
        };
        let footer = segment.footer().expect("memory can be read");
        let Some((trailer, entries)) = footer else {
            return;
        };
        let mut end = HEADER;
        for entry in &entries {
            let at = u64::from(entry.offset) * ALIGN;
            assert!(at >= end && entry.size > 0, "entries overlap");
            end = at + u64::from(entry.size) * ALIGN;
        }
        assert!(end <= trailer.end && trailer.end <= bytes.len() as u64);
    });
}

/// A checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    twice(bytes, |bytes| {
        let file = Memory(bytes.to_vec());
        let Some(header) = checkpoint::Header::read(&file).expect("memory can be read") else {
            return;
        };
        let mut items = 0;
        let read = checkpoint::read(&file, &header, |item| {
            items += 1;
            if let checkpoint::Item::Slot(slot) = item {
                assert!(slot.place.byte() >= HEADER && slot.bytes() >= ALIGN);
            }
            ControlFlow::Continue(())
        });
        // The shortest item has 16 bytes.
        assert!(items <= bytes.len() / 16);
        if read.expect("memory can be read") {
            let counted = header.counts.iter().map(|count| u128::from(*count));
            assert_eq!(counted.sum::<u128>(), items as u128);
        }
    });
}

/// A superblock, and a copy of the cleans.
pub fn superblock(bytes: &[u8]) {
    twice(bytes, |bytes| {
        let _ = Superblock::parse(bytes);
        assert!(cleans::parse(bytes).count() <= bytes.len() / 64);
    });
}

fn twice(bytes: &[u8], look: impl Fn(&[u8])) {
    look(bytes);
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    look(&repaired);
}

fn opened(bytes: &[u8]) -> Option<Segment> {
    let header = Header::parse(bytes)?;
    let file = Arc::new(Memory(bytes.to_vec()));
    Some(Segment::new(header, file, bytes.len() as u64))
}

/// Makes the checksums of heads, of the header and the entries and trailer of a segment, and of the
/// header and blocks of a checkpoint fit what they cover.
pub(crate) fn repair(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + 4);
        word.map_or(0, |word| {
            u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize
        })
    };
    let put = |bytes: &mut [u8], at: usize, from: usize, to: usize| {
        if let Some(covered) = bytes.get(from..to) {
            let crc = crc32c::crc32c(covered).to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&crc);
        }
    };
    for at in (0..bytes.len().saturating_sub(FIXED)).step_by(ALIGN as usize) {
        if bytes[at..].starts_with(b"LREC") {
            let length = word(bytes, at + 16);
            put(bytes, at + 4, at + 8, at.saturating_add(length));
        }
    }
    if bytes.starts_with(b"LARDSEG1") && bytes.len() > (HEADER + TRAILER) as usize {
        put(bytes, 60, 0, 60);
        let trailer = bytes.len() - TRAILER as usize;
        let entries = word(bytes, trailer + 24);
        put(bytes, trailer + 56, entries, trailer);
        put(bytes, trailer + 60, trailer, trailer + 60);
    }
    if bytes.starts_with(b"LARDCKP1") && bytes.len() > 128 {
        put(bytes, 124, 0, 124);
        let mut at = 128;
        while at + 12 <= bytes.len() {
            let end = (at + 12).saturating_add(word(bytes, at));
            put(bytes, at + 4, at + 8, end);
            at = end;
        }
    }
}

/// A file that lies in memory and is only read.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl DiskFile for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.0.len(), |at| at.min(self.0.len()));
        let read = buffer.len().min(self.0.len() - start);
        buffer[..read].copy_from_slice(&self.0[start..start + read]);
        Ok(read)
    }

    fn read_ready(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn sync(&self, _: Flush) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn forget(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
