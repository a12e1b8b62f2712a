//! Linear directories with checksums.

use super::checksum;
use super::inode::{put16, put32};
use super::layout::{BLOCK, kind};

/// The checksum at the end of each block, disguised as an unused entry.
const TAIL: usize = 12;

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) inode: u32,
    /// The type byte of [`kind`].
    pub(super) kind: u8,
    pub(super) name: &'a str,
}

/// The blocks of the directory with inode `number`: `.`, `..` and `entries` in their order.
pub(super) fn encode(number: u32, parent: u32, entries: &[Entry<'_>], fs_seed: u32) -> Vec<u8> {
    let seed = checksum::of_inode(fs_seed, number, 0);
    let dots = [(number, "."), (parent, "..")].map(|(inode, name)| Entry {
        inode,
        kind: kind::DIR.1,
        name,
    });
    let mut out = vec![0; BLOCK];
    // Start of the block, of its last entry (to be stretched to the tail), and of its free part.
    let (mut block, mut last, mut free) = (0, 0, 0);
    for entry in dots.iter().chain(entries) {
        let len = (8 + entry.name.len()).next_multiple_of(4);
        if free + len > BLOCK - TAIL {
            finish(&mut out[block..], last, seed);
            block += BLOCK;
            out.resize(block + BLOCK, 0);
            free = 0;
        }
        let slot = &mut out[block + free..][..len];
        put32(slot, 0, entry.inode);
        put16(slot, 4, len as u16);
        slot[6] = entry.name.len() as u8;
        slot[7] = entry.kind;
        slot[8..8 + entry.name.len()].copy_from_slice(entry.name.as_bytes());
        last = free;
        free += len;
    }
    finish(&mut out[block..], last, seed);
    out
}

/// Stretches the last entry to the end of the block and writes the checksum.
fn finish(block: &mut [u8], last: usize, seed: u32) {
    put16(block, last + 4, (BLOCK - TAIL - last) as u16);
    let sum = checksum::crc(seed, &block[..BLOCK - TAIL]);
    let tail = &mut block[BLOCK - TAIL..];
    put16(tail, 4, TAIL as u16);
    tail[7] = 0xDE;
    put32(tail, 8, sum);
}
