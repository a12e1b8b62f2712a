//! Where images are read from and written to: positioned access to a file, to memory, or to a
//! part of either (a partition inside a disk image), and lists of the ranges that hold data.
//!
//! All writers of this crate write by position and leave out what is zero, so that a sparse file
//! stays sparse. They rely on a target that reads as zero where nothing was written: a new file,
//! or a device whose range was discarded or cleared.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// Positioned reading. Shared references suffice, so that several threads can read at once.
pub trait ReadAt {
    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if there are not so many bytes, and whatever the device
    /// says.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// How many bytes there are.
    ///
    /// # Errors
    /// Whatever the device says.
    fn size(&self) -> io::Result<u64>;
}

/// Positioned writing.
pub trait WriteAt {
    /// Writes all of `buf` at byte `offset`.
    ///
    /// # Errors
    /// Whatever the device says.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        // Seeking, not metadata: a block device has the length 0 there.
        let mut file = self;
        io::Seek::seek(&mut file, io::SeekFrom::End(0))
    }
}

impl WriteAt for File {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..))
            .and_then(|rest| rest.get(..buf.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A file in memory that grows as it is written; for small images and for tests.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    /// `size` zero bytes.
    pub fn new(size: usize) -> Self {
        Self(Mutex::new(vec![0; size]))
    }

    /// The bytes.
    pub fn into_inner(self) -> Vec<u8> {
        self.0
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        // A panic while copying bytes leaves bytes; there is no state to be inconsistent.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ReadAt for Memory {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.lock().as_slice().read_exact_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.lock();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(buf);
        Ok(())
    }
}

/// `len` bytes from byte `start` of a device: a partition of a disk image. Nothing outside can be
/// read or written through it.
#[derive(Debug)]
pub struct Region<'a, D: ?Sized> {
    device: &'a D,
    start: u64,
    len: u64,
}

// Not derived: that would ask D to be Clone, and only the reference is copied.
impl<D: ?Sized> Clone for Region<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: ?Sized> Copy for Region<'_, D> {}

impl<'a, D: ?Sized> Region<'a, D> {
    /// The `len` bytes of `device` from byte `start`.
    pub fn new(device: &'a D, start: u64, len: u64) -> Self {
        Self { device, start, len }
    }

    /// Position on the device of byte `offset`, if `len` bytes fit there.
    fn position(&self, offset: u64, len: usize) -> Option<u64> {
        let end = offset.checked_add(len as u64)?;
        (end <= self.len).then_some(())?;
        self.start.checked_add(offset)
    }
}

impl<D: ReadAt + ?Sized> ReadAt for Region<'_, D> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let at = self
            .position(offset, buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        self.device.read_exact_at(buf, at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

impl<D: WriteAt + ?Sized> WriteAt for Region<'_, D> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let at = self.position(offset, buf.len()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} bytes at {offset} do not fit into a region of {} bytes",
                    buf.len(),
                    self.len
                ),
            )
        })?;
        self.device.write_all_at(buf, at)
    }
}

/// Bytes followed by zeros up to a size: a sparse image of which only the start exists.
#[derive(Clone, Copy, Debug)]
pub struct Padded<'a> {
    bytes: &'a [u8],
    size: u64,
}

impl<'a> Padded<'a> {
    /// `bytes`, then zeros up to `size` (of which more than `bytes` are cut).
    pub fn new(bytes: &'a [u8], size: u64) -> Self {
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        Self {
            bytes: &bytes[..bytes.len().min(len)],
            size,
        }
    }
}

impl ReadAt for Padded<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = self.bytes.get(start..).unwrap_or_default();
        let count = from.len().min(buf.len());
        buf[..count].copy_from_slice(&from[..count]);
        buf[count..].fill(0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Byte ranges that hold data, sorted, disjoint and merged; all between them is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents(Vec<Range<u64>>);

impl Extents {
    /// No data at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `range`, in any order, merging with what it touches.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Writers mostly go forward: the end is the common place.
        let first = self.0.partition_point(|have| have.end < range.start);
        let mut merged = range;
        let mut last = first;
        while let Some(have) = self.0.get(last) {
            if have.start > merged.end {
                break;
            }
            merged = merged.start.min(have.start)..merged.end.max(have.end);
            last += 1;
        }
        self.0.splice(first..last, [merged]);
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// How many bytes hold data.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether any byte of `range` holds data.
    pub fn touches(&self, range: Range<u64>) -> bool {
        let first = self.0.partition_point(|have| have.end <= range.start);
        self.0
            .get(first)
            .is_some_and(|have| have.start < range.end && !range.is_empty())
    }

    /// The same ranges, `by` bytes later: from a partition's view to the disk's.
    #[must_use]
    pub fn shifted(&self, by: u64) -> Self {
        Self(self.0.iter().map(|r| r.start + by..r.end + by).collect())
    }
}

/// Whether all of `bytes` are zero; fast on both long runs of zeros and on data.
pub fn is_zero(bytes: &[u8]) -> bool {
    // 64 bytes at a time: few enough to leave early on data, enough for vector instructions.
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_region_cannot_be_left() {
        let memory = Memory::new(100);
        let region = Region::new(&memory, 10, 20);
        region.write_all_at(&[1; 20], 0).unwrap();
        assert!(region.write_all_at(&[1; 2], 19).is_err());
        assert!(region.write_all_at(&[1], u64::MAX).is_err());
        assert!(region.read_exact_at(&mut [0; 2], 19).is_err());
        let bytes = memory.into_inner();
        assert_eq!((bytes[9], bytes[10], bytes[29], bytes[30]), (0, 1, 1, 0));
    }

    #[test]
    fn zero_is_found_at_every_length_and_a_one_at_every_place() {
        for len in [0, 1, 63, 64, 65, 4096] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    proptest! {
        #[test]
        fn extents_are_the_set_of_their_bytes(ranges in prop::collection::vec((0u64..64, 0u64..9), 0..20)) {
            let mut extents = Extents::new();
            let mut bytes = [false; 80];
            for (start, len) in ranges {
                extents.add(start..start + len);
                (start..start + len).for_each(|at| bytes[at as usize] = true);
            }
            prop_assert_eq!(extents.bytes(), bytes.iter().filter(|set| **set).count() as u64);
            for (at, set) in bytes.iter().enumerate() {
                let at = at as u64;
                prop_assert_eq!(extents.touches(at..at + 1), *set);
                prop_assert!(!extents.touches(at..at));
            }
            let list: Vec<_> = extents.iter().collect();
            prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
