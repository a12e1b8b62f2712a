//! Buffers for small records and for pieces of large bodies, used again and again: fresh ones cost as much
//! as the reading (memory that is cleared, pages that the kernel clears one by one).

use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;

use crate::volume::lock;

/// Most bytes of a buffer.
pub(crate) const LENGTH: usize = 256 * 1024;
/// The same of those for small records, as most are.
const SMALL: usize = 20 * 1024;
/// Most that wait for their next use: 8 MiB, and 1.25 MiB of small ones.
const WAITING: usize = 32;
const WAITING_SMALL: usize = 64;

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
static POOL_SMALL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A buffer of [`SMALL`] or [`LENGTH`] bytes, with whatever was in it before.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Not empty before it is dropped.
    bytes: Box<[u8]>,
    /// What of it counts.
    part: Range<usize>,
}

impl Buffer {
    /// One for so many bytes, at most [`LENGTH`].
    pub(crate) fn new(length: usize) -> Self {
        let (pool, size) = if length <= SMALL {
            (&POOL_SMALL, SMALL)
        } else {
            (&POOL, LENGTH)
        };
        let waiting = lock(pool).pop();
        Self {
            bytes: waiting.unwrap_or_else(|| vec![0; size].into()),
            part: 0..length.min(LENGTH),
        }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.part.clone()]
    }

    /// A part of it, which is given back when the last of it is let go.
    pub(crate) fn part(mut self, part: Range<usize>) -> Bytes {
        self.part = part;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.part.clone()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let (pool, most) = if bytes.len() == SMALL {
            (&POOL_SMALL, WAITING_SMALL)
        } else {
            (&POOL, WAITING)
        };
        let mut pool = lock(pool);
        if pool.len() < most {
            pool.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_only_after_its_last_part_is_gone() {
        let mut one = Buffer::new(4);
        one.bytes().copy_from_slice(b"abcd");
        let part = one.part(1..3);
        let clone = part.clone();
        drop(part);
        let mut others: Vec<Buffer> = (0..4).map(|_| Buffer::new(4)).collect();
        others.iter_mut().for_each(|other| other.bytes().fill(0));
        assert_eq!(clone, "bc");
        assert_eq!(Buffer::new(LENGTH + 1).bytes().len(), LENGTH);
    }
}
