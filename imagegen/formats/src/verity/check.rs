//! Checking data and tree against a root hash.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use uuid::Uuid;

use super::build::{BATCH, Hasher, hash_range, threads};
use super::{BLOCK, BLOCK_SIZE, DIGEST, Error, FANOUT, Parameters, RootHash, Verified, levels};
use crate::region::ReadAt;

/// More data than this no slot has: 1 TiB. A damaged superblock must not make us ask for memory.
const MOST_BLOCKS: u64 = 1 << 28;

/// Checks every hash block and every data block.
///
/// # Errors
/// What is wrong first: the superblock, a size, a hash block (from the top down), then the first
/// data block that does not match.
pub fn verify<D, H>(data: &D, hash: &H, root_hash: &RootHash) -> Result<Verified, Error>
where
    D: ReadAt + Sync + ?Sized,
    H: ReadAt + ?Sized,
{
    let mut block = [0; BLOCK];
    read_hash(hash, &mut block, 0)?;
    let (data_blocks, parameters) = superblock(&block)?;
    let needed = super::tree_bytes(data_blocks);
    for (what, have, needed) in [
        (
            "the hash partition",
            size("the hash partition", hash)?,
            needed,
        ),
        (
            "the data",
            size("the data", data)?,
            data_blocks * BLOCK_SIZE,
        ),
    ] {
        if have < needed {
            return Err(Error::Short { what, have, needed });
        }
    }

    let hasher = Hasher::new(&parameters.salt);
    // Digests that the level below must have, from the root down.
    let mut expected = root_hash.0.to_vec();
    let mut first = 1;
    for (level, &width) in levels(data_blocks).iter().enumerate().rev() {
        let mut bytes = vec![0; width as usize * BLOCK];
        read_hash(hash, &mut bytes, first * BLOCK_SIZE)?;
        for (at, block) in bytes.chunks_exact(BLOCK).enumerate() {
            if hasher.digest(block) != expected[at * DIGEST..(at + 1) * DIGEST] {
                let block = first + at as u64;
                return Err(Error::HashBlock {
                    level,
                    block,
                    offset: block * BLOCK_SIZE,
                });
            }
        }
        expected = bytes;
        first += width;
    }
    verify_data(data, data_blocks, &hasher, &expected)?;
    Ok(Verified {
        data_blocks,
        tree_bytes: needed,
        parameters,
    })
}

/// Compares the digests of all data blocks, in threads, with `expected`.
fn verify_data<D: ReadAt + Sync + ?Sized>(
    data: &D,
    blocks: u64,
    hasher: &Hasher,
    expected: &[u8],
) -> Result<(), Error> {
    const STEP: u64 = BATCH as u64 * FANOUT;
    let next = AtomicU64::new(0);
    let worst: Mutex<Option<(u64, Error)>> = Mutex::new(None);
    let report = |block: u64, error: Error| {
        let mut worst = worst
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if worst.as_ref().is_none_or(|(other, _)| block < *other) {
            *worst = Some((block, error));
        }
        // What comes later need not be read.
        next.fetch_max(blocks, Ordering::Relaxed);
    };
    let work = || {
        loop {
            let first = next.fetch_add(STEP, Ordering::Relaxed);
            if first >= blocks {
                return;
            }
            let mut bad = None;
            let read = hash_range(
                data,
                None,
                hasher,
                first..blocks.min(first + STEP),
                |block, digest| {
                    let at = block as usize * DIGEST;
                    if bad.is_none() && expected[at..at + DIGEST] != digest {
                        bad = Some(block);
                    }
                },
            );
            if let Some(block) = bad {
                let offset = block * BLOCK_SIZE;
                report(block, Error::DataBlock { block, offset });
            } else if let Err(error) = read {
                report(first, error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads() {
            scope.spawn(work);
        }
        work();
    });
    match worst
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

fn size<D: ReadAt + ?Sized>(what: &'static str, device: &D) -> Result<u64, Error> {
    device.size().map_err(|source| Error::Read {
        what,
        offset: 0,
        source,
    })
}

fn read_hash<H: ReadAt + ?Sized>(hash: &H, out: &mut [u8], offset: u64) -> Result<(), Error> {
    hash.read_exact_at(out, offset)
        .map_err(|source| Error::Read {
            what: "the hash partition",
            offset,
            source,
        })
}

/// Size and parameters from `struct verity_sb`.
fn superblock(bytes: &[u8; BLOCK]) -> Result<(u64, Parameters), Error> {
    let bad = |offset: u64, what: &str| Error::Superblock {
        offset,
        what: what.to_string(),
    };
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if &bytes[..8] != b"verity\0\0" {
        return Err(bad(0, "no verity signature"));
    }
    if word(8) != 1 || word(12) != 1 {
        return Err(bad(8, "a version other than 1, hash type 1"));
    }
    if &bytes[32..64] != b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" {
        return Err(bad(32, "a hash other than sha256"));
    }
    if word(64) != BLOCK as u32 || word(68) != BLOCK as u32 {
        return Err(bad(64, "a block size other than 4096"));
    }
    let data_blocks = u64::from(word(72)) | u64::from(word(76)) << 32;
    if data_blocks == 0 || data_blocks > MOST_BLOCKS {
        return Err(bad(72, &format!("{data_blocks} data blocks")));
    }
    let salt_len = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
    if salt_len > 256 {
        return Err(bad(80, &format!("a salt of {salt_len} bytes")));
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[16..32]);
    Ok((
        data_blocks,
        Parameters {
            salt: bytes[88..88 + salt_len].to_vec(),
            uuid: Uuid::from_bytes(uuid),
        },
    ))
}

/// For fuzzing: any bytes as a hash partition over a few blocks of data.
pub fn fuzz(bytes: &[u8]) {
    let data = [0u8; 4 * BLOCK];
    let root = RootHash([0; DIGEST]);
    let _ = verify(&data[..], bytes, &root);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bent_hash_trees_end_in_words() {
        let parameters = Parameters {
            salt: vec![1; 32],
            uuid: Uuid::nil(),
        };
        let data = vec![0; 4 * BLOCK];
        let tree = super::super::build(&data, 4, None, &parameters).unwrap();
        assert!(verify(&data, &tree.bytes, &tree.root_hash).is_ok());
        crate::fuzzing::mutate_for(std::time::Duration::from_secs(1), &[tree.bytes], fuzz);
    }
}
