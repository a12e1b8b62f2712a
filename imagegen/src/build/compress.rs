//! `larder.raw.zst`: a sparse image as Zstandard frames, without a look at its holes.
//!
//! The data are cut into pieces that are compressed side by side, a frame each (with checksum);
//! a hole becomes frames of nothing but RLE blocks, 4 bytes for each 128 KiB. Any decoder reads
//! frames one after the other as one stream (RFC 8878, 3.1), and `zstd -d --sparse` makes the holes
//! again.

use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use formats::region::{Extents, ReadAt};

/// Bytes of data in a frame: large enough for the ratio, small enough for threads to share.
const PIECE: u64 = 4 << 20;
/// `Block_Maximum_Size` (RFC 8878, 3.1.1.2.3).
const BLOCK: u64 = 128 << 10;
/// Bytes of a hole in one frame; the size field takes 32 bits.
const HOLE: u64 = 1 << 30;

/// Compresses `image` of `size` bytes, of which only `data` is not zero, in `threads` threads.
///
/// # Errors
/// Reading the image or writing fails.
pub(super) fn compress<D: ReadAt + Sync + ?Sized>(
    image: &D,
    size: u64,
    data: &Extents,
    level: i32,
    threads: usize,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let pieces = pieces(size, data);
    let next = AtomicUsize::new(0);
    let done: Mutex<Ordered<'_>> = Mutex::new(Ordered::new(out));
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            let mut encoder = zstd::bulk::Compressor::new(level)?;
            encoder.include_checksum(true)?;
            encoder.include_contentsize(true)?;
            encoder.long_distance_matching(false)?;
            let mut buffer = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = pieces.get(index) else {
                    return Ok(());
                };
                let frames = match piece {
                    Piece::Hole(len) => zeros(*len),
                    Piece::Data(range) => {
                        buffer.resize((range.end - range.start) as usize, 0);
                        image
                            .read_exact_at(&mut buffer, range.start)
                            .with_context(|| {
                                format!("reading the image at byte {}", range.start)
                            })?;
                        encoder.compress(&buffer)?
                    }
                };
                let mut ordered = done.lock().unwrap_or_else(|broken| broken.into_inner());
                ordered.give(index, frames)?;
            }
        };
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            handle
                .join()
                .map_err(|_| anyhow::anyhow!("a compressing thread panicked"))??;
        }
        Ok(())
    })?;
    let ordered = done
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner());
    ordered.out.flush()?;
    Ok(ordered.written)
}

/// What becomes frames of its own.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Hole(u64),
    Data(Range<u64>),
}

fn pieces(size: u64, data: &Extents) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for extent in data.iter() {
        let end = extent.end.min(size);
        if extent.start > at {
            pieces.push(Piece::Hole(extent.start - at));
        }
        let mut start = extent.start;
        while start < end {
            let stop = (start + PIECE).min(end);
            pieces.push(Piece::Data(start..stop));
            start = stop;
        }
        at = end.max(at);
    }
    if size > at {
        pieces.push(Piece::Hole(size - at));
    }
    pieces
}

/// Frames that decode to `len` zero bytes.
fn zeros(mut len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while len > 0 {
        let now = len.min(HOLE);
        len -= now;
        out.extend(0xFD2F_B528_u32.to_le_bytes());
        // Single segment would make the decoder allocate all of it: a window of 128 KiB instead,
        // and the size of the content in four bytes.
        out.push(2 << 6);
        out.push(7 << 3);
        out.extend((now as u32).to_le_bytes());
        let mut left = now;
        while left > 0 {
            let block = left.min(BLOCK);
            left -= block;
            // Last_Block, Block_Type 1 (RLE), Block_Size.
            let header = u32::from(left == 0) | 1 << 1 | (block as u32) << 3;
            out.extend(&header.to_le_bytes()[..3]);
            out.push(0);
        }
    }
    out
}

/// Takes results in any order and writes them in order.
struct Ordered<'w> {
    out: &'w mut (dyn Write + Send),
    waiting: std::collections::BTreeMap<usize, Vec<u8>>,
    next: usize,
    written: u64,
}

impl<'w> Ordered<'w> {
    fn new(out: &'w mut (dyn Write + Send)) -> Self {
        Self {
            out,
            waiting: std::collections::BTreeMap::new(),
            next: 0,
            written: 0,
        }
    }

    fn give(&mut self, index: usize, frames: Vec<u8>) -> Result<()> {
        self.waiting.insert(index, frames);
        while let Some(frames) = self.waiting.remove(&self.next) {
            self.out
                .write_all(&frames)
                .context("writing the compressed image")?;
            self.written += frames.len() as u64;
            self.next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use formats::region::Memory;
    use formats::region::WriteAt as _;

    use super::*;

    fn round_trip(size: u64, data: &[(u64, u64)]) -> usize {
        let memory = Memory::new(size as usize);
        let mut extents = Extents::new();
        for (start, end) in data {
            let range = *start..*end;
            let bytes: Vec<u8> = range.clone().map(|i| (i * 7 % 251) as u8).collect();
            memory.write_all_at(&bytes, range.start).unwrap();
            extents.add(range.clone());
        }
        let mut out = Vec::new();
        let written = compress(&memory, size, &extents, 3, 3, &mut out).unwrap();
        assert_eq!(written, out.len() as u64);
        let decoded = zstd::stream::decode_all(&out[..]).unwrap();
        assert!(decoded == memory.into_inner(), "size {size}, data {data:?}");
        out.len()
    }

    #[test]
    fn any_mixture_of_holes_and_data_comes_back() {
        round_trip(1, &[]);
        round_trip(BLOCK, &[]);
        round_trip(BLOCK + 1, &[]);
        round_trip(PIECE + 5, &[(0, PIECE + 5)]);
        round_trip(
            3 * PIECE,
            &[(10, 20), (4096, PIECE + 4097), (3 * PIECE - 1, 3 * PIECE)],
        );
    }

    #[test]
    fn holes_cost_next_to_nothing() {
        assert!(round_trip(64 << 20, &[(0, 4096)]) < 8 << 10);
    }

    #[test]
    fn a_hole_longer_than_a_frame_takes_several() {
        let frames = zeros(HOLE + 3);
        let frame = zeros(HOLE).len();
        assert_eq!(&frames[..frame], zeros(HOLE));
        assert_eq!(&frames[frame..], zeros(3));
    }
}
