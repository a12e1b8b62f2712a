//! Samples that wait for the receiver, on disk, bounded by bytes and age.
//!
//! Each scrape is a frame, and each frame that waits a file, named by a number that grows:
//!
//! ```text
//! "LDF1" | CRC-32C of what follows, u32 LE | time in ms since 1970, i64 LE | WriteRequest, snappy
//! ```
//!
//! A power cut leaves a file whole, or damaged, which the checksum shows, or not there. Damaged
//! files are counted and removed. Nothing is written while the receiver takes everything.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::sample::Snapshot;

const MAGIC: &[u8; 4] = b"LDF1";
/// Largest frame in bytes, compressed.
const FRAME: u64 = 16 << 20;

/// The samples of one scrape, as a request of remote write 1.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Time of the samples in ms since 1970.
    pub time: i64,
    /// `prometheus.WriteRequest`, compressed with snappy's block format.
    pub body: Vec<u8>,
}

impl Frame {
    /// The frame of a snapshot.
    pub fn new(time: i64, snapshot: &Snapshot) -> Self {
        Self::of_request(time, &snapshot.write_request(time, 0..snapshot.len()))
    }

    /// The frame of a request that is not compressed.
    pub(super) fn of_request(time: i64, request: &[u8]) -> Self {
        // Fails only beyond 4 GiB.
        let body = snap::raw::Encoder::new()
            .compress_vec(request)
            .unwrap_or_default();
        Self { time, body }
    }

    /// The series of the request, encoded each; empty if it is damaged.
    pub(super) fn series(&self) -> Vec<Vec<u8>> {
        let raw = snap::raw::Decoder::new()
            .decompress_vec(&self.body)
            .unwrap_or_default();
        let mut series = Vec::new();
        let mut rest = &raw[..];
        while let Some((length, head)) = field_length(rest) {
            let Some(one) = rest.get(..head + length) else {
                break;
            };
            series.push(one.to_vec());
            rest = &rest[head + length..];
        }
        series
    }
}

/// Length of the value and of the head of a length-delimited field.
fn field_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().skip(1).take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, at + 2));
        }
    }
    None
}

/// Frames on disk, oldest first.
#[derive(Debug)]
pub struct Ring {
    folder: PathBuf,
    /// Most bytes on disk, and how long a frame may wait in ms.
    limit: u64,
    age: i64,
    /// Number, size and time.
    frames: VecDeque<(u64, u64, i64)>,
    bytes: u64,
    next: u64,
    /// Frames that had to go because of the limits or were damaged, until they are asked for.
    lost: u64,
}

impl Ring {
    /// Opens the folder, which is made if it is missing, with what an earlier run left.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>, limit: u64, age: i64) -> std::io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(number) = name
                .strip_suffix(".frame")
                .and_then(|name| name.parse().ok())
            {
                found.push((number, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        let mut ring = Self {
            folder,
            limit,
            age,
            next: found.last().map_or(0, |(number, _)| number + 1),
            frames: VecDeque::new(),
            bytes: 0,
            lost: 0,
        };
        for (number, size) in found {
            match ring.read(number) {
                Some(frame) => {
                    ring.frames.push_back((number, size, frame.time));
                    ring.bytes += size;
                }
                None => {
                    ring.lost += 1;
                    let _ = std::fs::remove_file(ring.path(number));
                }
            }
        }
        Ok(ring)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}.frame"))
    }

    /// Frames in it.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Time of the oldest frame.
    pub fn oldest(&self) -> Option<i64> {
        self.frames.front().map(|(_, _, time)| *time)
    }

    /// How many frames were lost since the last time that this was asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Adds a frame as the newest. The oldest make room.
    ///
    /// # Errors
    ///
    /// It could not be written; then nothing has changed.
    pub fn push(&mut self, frame: &Frame) -> std::io::Result<()> {
        let mut content = Vec::with_capacity(frame.body.len() + 16);
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&[0; 4]);
        content.extend_from_slice(&frame.time.to_le_bytes());
        content.extend_from_slice(&frame.body);
        let crc = crc32c::crc32c(&content[8..]);
        content[4..8].copy_from_slice(&crc.to_le_bytes());
        let size = content.len() as u64;
        while !self.frames.is_empty() && self.bytes + size > self.limit {
            self.remove_oldest();
            self.lost += 1;
        }
        let path = self.path(self.next);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file: File| file.write_all(&content).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        self.frames.push_back((self.next, size, frame.time));
        self.bytes += size;
        self.next += 1;
        Ok(())
    }

    /// The oldest frame that is whole and not too old at `now`, in ms since 1970.
    pub fn front(&mut self, now: i64) -> Option<Frame> {
        while let Some((number, _, time)) = self.frames.front().copied() {
            if now.saturating_sub(time) <= self.age
                && let Some(frame) = self.read(number)
            {
                return Some(frame);
            }
            self.remove_oldest();
            self.lost += 1;
        }
        None
    }

    /// Removes the oldest frame.
    pub fn remove_oldest(&mut self) {
        if let Some((number, size, _)) = self.frames.pop_front() {
            self.bytes -= size;
            // If it stays, it is sent again after a restart, and taken as the same.
            let _ = std::fs::remove_file(self.path(number));
        }
    }

    fn read(&self, number: u64) -> Option<Frame> {
        let path = self.path(number);
        if path.metadata().ok()?.len() > FRAME {
            return None;
        }
        let content = std::fs::read(path).ok()?;
        let (magic, rest) = content.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        if magic != MAGIC || u32::from_le_bytes(*crc) != crc32c::crc32c(rest) {
            return None;
        }
        let (time, body) = rest.split_first_chunk::<8>()?;
        Some(Frame {
            time: i64::from_le_bytes(*time),
            body: body.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(time: i64) -> Frame {
        Frame {
            time,
            body: vec![time as u8; 100],
        }
    }

    #[test]
    fn frames_survive_a_restart_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), 1 << 20, 1_000_000).unwrap();
        for time in 0..20 {
            ring.push(&frame(time)).unwrap();
        }
        ring.remove_oldest();
        let mut ring = Ring::open(folder.path(), 1 << 20, 1_000_000).unwrap();
        assert_eq!(ring.len(), 19);
        for time in 1..20 {
            assert_eq!(ring.front(0), Some(frame(time)));
            ring.remove_oldest();
        }
        assert_eq!((ring.front(0), ring.bytes()), (None, 0));
    }

    #[test]
    fn limits_take_the_oldest_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), 500, 50).unwrap();
        for time in 0..10 {
            ring.push(&frame(time)).unwrap();
        }
        assert_eq!((ring.len(), ring.take_lost()), (4, 6));
        assert_eq!(ring.front(58), Some(frame(8)));
        assert_eq!(ring.take_lost(), 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn damaged_files_are_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(folder.path(), 1 << 20, 1000).unwrap();
        for time in 0..4 {
            ring.push(&frame(time)).unwrap();
        }
        let path = |ring: &Ring, number| ring.path(number);
        std::fs::write(path(&ring, 0), "").unwrap();
        let mut content = std::fs::read(path(&ring, 1)).unwrap();
        content[40] ^= 1;
        std::fs::write(path(&ring, 1), content).unwrap();
        std::fs::write(folder.path().join("other"), "x").unwrap();
        let mut ring = Ring::open(folder.path(), 1 << 20, 1000).unwrap();
        assert_eq!((ring.len(), ring.take_lost()), (2, 2));
        assert_eq!(ring.front(0), Some(frame(2)));
    }
}
