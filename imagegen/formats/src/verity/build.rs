//! Making the tree.

use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use sha2::{Digest, Sha256};

use super::{BLOCK, BLOCK_SIZE, DIGEST, Error, FANOUT, HashTree, Parameters, RootHash, levels};
use crate::region::{Extents, ReadAt, is_zero};

/// Leaf hash blocks that a thread takes at once: 2 MiB of data.
pub(super) const BATCH: usize = 4;

/// A hash function that has seen the salt, and its digest of a zero block.
#[derive(Clone)]
pub(super) struct Hasher {
    salted: Sha256,
    zero: [u8; DIGEST],
}

impl Hasher {
    pub(super) fn new(salt: &[u8]) -> Self {
        let salted = Sha256::new_with_prefix(salt);
        let zero = salted.clone().chain_update([0; BLOCK]).finalize().into();
        Self { salted, zero }
    }

    pub(super) fn digest(&self, block: &[u8]) -> [u8; DIGEST] {
        if is_zero(block) {
            return self.zero;
        }
        self.salted.clone().chain_update(block).finalize().into()
    }
}

/// Hashes the first `blocks` blocks of `data`, in as many threads as there are processors (at
/// most four). With `written`, only blocks that touch its ranges are read; all others are taken
/// to be zero.
///
/// # Errors
/// [`Error::Salt`], [`Error::NoData`], [`Error::Read`].
pub fn build<D: ReadAt + Sync + ?Sized>(
    data: &D,
    blocks: u64,
    written: Option<&Extents>,
    parameters: &Parameters,
) -> Result<HashTree, Error> {
    if parameters.salt.len() > 256 {
        return Err(Error::Salt(parameters.salt.len()));
    }
    if blocks == 0 {
        return Err(Error::NoData);
    }
    let hasher = Hasher::new(&parameters.salt);
    let levels = levels(blocks);
    let mut bytes = vec![0; super::tree_bytes(blocks) as usize];
    superblock(&mut bytes, blocks, parameters);

    // The leaves are the last level in the partition.
    let mut width = levels.first().map_or(0, |&width| width as usize * BLOCK);
    let mut end = bytes.len();
    if levels.is_empty() {
        let mut block = [0; BLOCK];
        hash_range(data, written, &hasher, 0..1, |_, digest| {
            block[..DIGEST].copy_from_slice(&digest);
        })?;
        let mut root = [0; DIGEST];
        root.copy_from_slice(&block[..DIGEST]);
        return Ok(HashTree {
            bytes,
            root_hash: RootHash(root),
        });
    }
    leaves(data, written, &hasher, blocks, &mut bytes[end - width..])?;
    for &above in &levels[1..] {
        let above = above as usize * BLOCK;
        let start = end - width;
        let (upper, lower) = bytes.split_at_mut(start);
        let upper = &mut upper[start - above..];
        for (block, slot) in lower[..width]
            .chunks_exact(BLOCK)
            .zip(upper.chunks_exact_mut(DIGEST))
        {
            slot.copy_from_slice(&hasher.digest(block));
        }
        end = start;
        width = above;
    }
    let root_hash = RootHash(hasher.digest(&bytes[BLOCK..2 * BLOCK]));
    Ok(HashTree { bytes, root_hash })
}

/// The first level, shared out to threads.
fn leaves<D: ReadAt + Sync + ?Sized>(
    data: &D,
    written: Option<&Extents>,
    hasher: &Hasher,
    blocks: u64,
    out: &mut [u8],
) -> Result<(), Error> {
    let batches = out.chunks_mut(BATCH * BLOCK).enumerate();
    let threads = threads().min(batches.len());
    let batches = Mutex::new(batches);
    let work = || -> Result<(), Error> {
        loop {
            // A thread that panicked has not left the iterator half advanced.
            let next = batches
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .next();
            let Some((number, out)) = next else {
                return Ok(());
            };
            let first = (number * BATCH) as u64 * FANOUT;
            let last = (first + (out.len() / DIGEST) as u64).min(blocks);
            hash_range(data, written, hasher, first..last, |block, digest| {
                let at = (block - first) as usize * DIGEST;
                out[at..at + DIGEST].copy_from_slice(&digest);
            })?;
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            // A panic of the thread goes on in this one.
            let theirs = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(theirs);
        }
        result
    })
}

pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(4))
}

/// Digests of the data blocks in `range`.
pub(super) fn hash_range<D: ReadAt + ?Sized>(
    data: &D,
    written: Option<&Extents>,
    hasher: &Hasher,
    range: Range<u64>,
    mut found: impl FnMut(u64, [u8; DIGEST]),
) -> Result<(), Error> {
    // 512 KiB: stays in the cache between the copy and the hashing.
    const STEP: u64 = 128;
    let mut buffer = vec![0; STEP as usize * BLOCK];
    let mut first = range.start;
    while first < range.end {
        let last = range.end.min(first + STEP);
        let bytes = first * BLOCK_SIZE..last * BLOCK_SIZE;
        if written.is_none_or(|written| written.touches(bytes.clone())) {
            let buffer = &mut buffer[..(bytes.end - bytes.start) as usize];
            data.read_exact_at(buffer, bytes.start)
                .map_err(|source| Error::Read {
                    what: "data",
                    offset: bytes.start,
                    source,
                })?;
            for (block, number) in buffer.chunks_exact(BLOCK).zip(first..) {
                found(number, hasher.digest(block));
            }
        } else {
            (first..last).for_each(|number| found(number, hasher.zero));
        }
        first = last;
    }
    Ok(())
}

/// `struct verity_sb`, 512 bytes.
fn superblock(out: &mut [u8], blocks: u64, parameters: &Parameters) {
    out[..8].copy_from_slice(b"verity\0\0");
    // Version of the superblock and of the hashes.
    out[8..12].copy_from_slice(&1u32.to_le_bytes());
    out[12..16].copy_from_slice(&1u32.to_le_bytes());
    out[16..32].copy_from_slice(parameters.uuid.as_bytes());
    out[32..38].copy_from_slice(b"sha256");
    out[64..68].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    out[68..72].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    out[72..80].copy_from_slice(&blocks.to_le_bytes());
    out[80..82].copy_from_slice(&(parameters.salt.len() as u16).to_le_bytes());
    out[88..88 + parameters.salt.len()].copy_from_slice(&parameters.salt);
}
