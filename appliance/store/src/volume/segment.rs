//! A segment as it is open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::disk::{Disk, DiskFile, read_exact};
use crate::format::segment::{Entry, HEADER, Header, TRAILER, Trailer};
use crate::format::{ALIGN, record};

/// An open segment; readers hold it while they read.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) path: String,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Bytes on the disk.
    pub(crate) bytes: AtomicU64,
    /// What it holds, as long as its footer does not say it.
    pub(crate) memory: Mutex<Option<Arc<Vec<Entry>>>>,
    /// Time of the newest record, once it is closed.
    pub(crate) newest: AtomicU64,
    /// Set when the segment is given up: where its bytes count until the last reader is gone.
    pub(crate) pending: Mutex<Option<Arc<AtomicU64>>>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(pending) = lock(&self.pending).take() {
            pending.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Path of a segment.
pub(crate) fn path(id: u32) -> String {
    format!("segments/{id:08x}.seg")
}

/// The id in the name of a segment.
pub(crate) fn id(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let id = u32::from_str_radix(digits, 16).ok()?;
    (digits == format!("{id:08x}")).then_some(id)
}

impl Segment {
    pub(crate) fn new(header: Header, file: Arc<dyn DiskFile>, bytes: u64) -> Self {
        Self {
            path: path(header.id),
            header,
            file,
            bytes: AtomicU64::new(bytes),
            memory: Mutex::default(),
            newest: AtomicU64::new(header.time),
            pending: Mutex::default(),
        }
    }

    /// Opens the segment of this id; `None`: its header is damaged.
    pub(crate) fn open(disk: &dyn Disk, id: u32) -> std::io::Result<Option<Self>> {
        let file = disk.open(&path(id))?;
        let length = file.length()?;
        let mut bytes = [0; HEADER as usize];
        let read = file.read_at(&mut bytes, 0)?;
        let header = Header::parse(&bytes[..read]).filter(|header| header.id == id);
        Ok(header.map(|header| Self::new(header, file, length)))
    }

    /// The trailer and entries of the footer, if there is one and it checks.
    pub(crate) fn footer(&self) -> std::io::Result<Option<(Trailer, Vec<Entry>)>> {
        let length = self.file.length()?;
        if length < HEADER + TRAILER {
            return Ok(None);
        }
        let bytes = read_exact(&*self.file, length - TRAILER, TRAILER as usize)?;
        let Some(trailer) = Trailer::parse(&bytes, length, &self.header) else {
            return Ok(None);
        };
        let size = (length - TRAILER - trailer.entries) as usize;
        let bytes = read_exact(&*self.file, trailer.entries, size)?;
        Ok(trailer.entries(&bytes).map(|entries| (trailer, entries)))
    }

    /// What the segment holds: from memory, the footer, or by a scan.
    pub(crate) fn entries(&self) -> std::io::Result<Arc<Vec<Entry>>> {
        if let Some(entries) = &*lock(&self.memory) {
            return Ok(Arc::clone(entries));
        }
        match self.footer()? {
            Some((_, entries)) => Ok(Arc::new(entries)),
            None => Ok(Arc::new(self.scan()?.entries)),
        }
    }

    /// Looks at every 16 bytes for records that check (`FORMAT.md` 3).
    pub(crate) fn scan(&self) -> std::io::Result<Scan> {
        let length = self.file.length()?;
        let mut scan = Scan {
            entries: Vec::new(),
            end: HEADER,
            newest: 0,
            damaged: Vec::new(),
        };
        // At least as much as the longest record; then a record is whole in the window or nowhere.
        let window_bytes = usize::try_from(self.header.size.min(16 << 20)).unwrap_or(16 << 20);
        let mut window = Window {
            file: &*self.file,
            at: 0,
            bytes: Vec::new(),
            size: window_bytes.max(1 << 16),
        };
        let mut at = HEADER;
        while at + record::FIXED as u64 <= length {
            let Some(skip) = window.zeros(at, length)? else {
                break;
            };
            at += skip;
            let bytes = window.get(at, length)?;
            let Some((head, size)) = record::whole(bytes, self.header.generation) else {
                at += ALIGN;
                continue;
            };
            if at > scan.end {
                scan.damaged.push(scan.end);
            }
            scan.newest = scan.newest.max(head.time);
            scan.entries.push(Entry {
                tag: head.tag,
                offset: (at / ALIGN) as u32,
                size: (size / ALIGN) as u32,
                kind: head.kind,
                flags: head.flags,
                pages: if head.file == 0 {
                    0
                } else {
                    head.length.div_ceil(4096) as u32
                },
                file: head.file,
            });
            at += size;
            scan.end = at;
        }
        Ok(scan)
    }
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<Entry>,
    /// End of the last record.
    pub(crate) end: u64,
    /// Time of the newest one.
    pub(crate) newest: u64,
    /// Where bytes before a record belong to none: records that were damaged.
    pub(crate) damaged: Vec<u64>,
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    bytes: Vec<u8>,
    size: usize,
}

impl Window<'_> {
    /// The bytes from `at` on: half of the window or more, or up to the end of the file.
    fn get(&mut self, at: u64, length: u64) -> std::io::Result<&[u8]> {
        let have = (self.at + self.bytes.len() as u64).saturating_sub(at);
        if at < self.at || have < (length - at).min(self.size as u64 / 2) {
            let size = (length - at).min(self.size as u64) as usize;
            self.bytes = read_exact(self.file, at, size)?;
            self.at = at;
        }
        Ok(&self.bytes[(at - self.at) as usize..])
    }

    /// How far from `at` the next 16 bytes are that begin like a record; `None`: there are none.
    fn zeros(&mut self, at: u64, length: u64) -> std::io::Result<Option<u64>> {
        let mut skip = 0;
        while at + skip + (record::FIXED as u64) <= length {
            let bytes = self.get(at + skip, length)?;
            let step = bytes
                .chunks_exact(ALIGN as usize)
                .position(|chunk| chunk.starts_with(b"LREC"));
            match step {
                Some(step) => return Ok(Some(skip + step as u64 * ALIGN)),
                None => skip += (bytes.len() as u64 / ALIGN).max(1) * ALIGN,
            }
        }
        Ok(None)
    }
}
