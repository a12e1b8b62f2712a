//! Gives the planned inodes their places and writes everything.

use std::io;

use super::checksum;
use super::inode::{Extent, Inode, MAX_EXTENT, extent_tree};
use super::layout::{BLOCK, BLOCKS_PER_GROUP, FIRST_INODE, Geometry, INODE};
use super::plan::{self, Body, Planned, Runs};
use super::superblock::{self, Group, Superblock};
use super::xattr;
use super::{Error, Options, Summary};
use crate::region::{Extents, WriteAt};
use crate::tree::Tree;

/// Writes gathered to this many bytes.
const GATHER: usize = 1 << 20;
/// What is at least so long is written as it is, without a copy.
const DIRECT: usize = 128 << 10;

/// What tells a sealed file system from an empty one to be mounted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) sealed: bool,
    /// At least so many blocks.
    pub(super) blocks: u64,
    /// At least so many inodes that nothing uses.
    pub(super) spare_inodes: u32,
}

pub(super) fn write<W: WriteAt + ?Sized>(
    tree: &Tree,
    options: &Options,
    shape: Shape,
    out: &W,
) -> Result<Summary, Error> {
    if options.label.len() > 16 {
        return Err(Error::Label(options.label.clone()));
    }
    let fs_seed = checksum::of_uuid(options.uuid.as_bytes());
    let files = plan::plan(tree, options, fs_seed)?;
    let used_inodes = plan::number(files.len() - 1);
    let inodes = used_inodes
        .checked_add(shape.spare_inodes)
        .ok_or(Error::TooManyFiles(files.len()))?;
    let meta: u64 = files.iter().map(Planned::meta_blocks).sum();
    let data: u64 = files.iter().map(Planned::data_blocks).sum();
    let geometry = Geometry::new(inodes, meta + data, shape.blocks);
    let size = geometry.total * BLOCK as u64;
    if size > options.max_bytes {
        return Err(Error::TooBig {
            needed: size,
            limit: options.max_bytes,
        });
    }

    let mut writer = Writer::new(out);
    write_groups(&mut writer, &files, &geometry, meta + data, options, shape)?;
    let places = write_metadata(&mut writer, &files, &geometry, meta, fs_seed)?;
    for (file, place) in files.iter().zip(places) {
        if let Body::File(bytes, runs) = &file.body {
            write_data(&mut writer, bytes, runs, place)?;
        }
    }
    writer.flush()?;
    Ok(Summary {
        blocks: geometry.total,
        inodes: used_inodes,
        data: writer.extents,
    })
}

/// Superblock, descriptors and bitmaps. Blocks are used from 0 without a gap, inodes from 1.
fn write_groups<W: WriteAt + ?Sized>(
    writer: &mut Writer<'_, W>,
    files: &[Planned<'_>],
    geometry: &Geometry,
    body: u64,
    options: &Options,
    shape: Shape,
) -> Result<(), Error> {
    let fs_seed = checksum::of_uuid(options.uuid.as_bytes());
    let used_blocks = geometry.body + body;
    let used_inodes = plan::number(files.len() - 1);
    let mut folders = vec![0u32; geometry.groups as usize];
    for (index, _) in files.iter().enumerate().filter(|(_, f)| f.is_dir()) {
        folders[((plan::number(index) - 1) / geometry.inodes_per_group) as usize] += 1;
    }
    let mut head = vec![0; BLOCK];
    let mut bitmaps: [Vec<u8>; 2] = Default::default();
    for number in 0..geometry.groups {
        let start = u64::from(number) * BLOCKS_PER_GROUP;
        let blocks = (geometry.total - start).min(BLOCKS_PER_GROUP);
        let used = used_blocks.saturating_sub(start).min(blocks);
        let first_inode = number * geometry.inodes_per_group;
        let inodes = used_inodes
            .saturating_sub(first_inode)
            .min(geometry.inodes_per_group);
        let block_bitmap = bitmap(used, blocks);
        let inode_bitmap = bitmap(inodes.into(), geometry.inodes_per_group.into());
        let group = Group {
            number,
            free_blocks: (blocks - used) as u32,
            free_inodes: geometry.inodes_per_group - inodes,
            folders: folders[number as usize],
            block_bitmap: &block_bitmap,
            inode_bitmap: &inode_bitmap,
        };
        head.extend_from_slice(&group.encode(geometry, fs_seed));
        bitmaps[0].extend_from_slice(&block_bitmap);
        bitmaps[1].extend_from_slice(&inode_bitmap);
    }
    let superblock = Superblock {
        uuid: options.uuid.as_bytes(),
        hash_seed: options.hash_seed.as_bytes(),
        label: &options.label,
        clock: options.clock.max(0),
        sealed: shape.sealed,
        free_blocks: geometry.total - used_blocks,
        free_inodes: geometry.inodes() - used_inodes,
        lost_found: FIRST_INODE,
    };
    head[superblock::OFFSET..][..superblock::LEN].copy_from_slice(&superblock.encode(geometry));
    writer.put(0, &head)?;
    writer.put(geometry.block_bitmaps, &bitmaps[0])?;
    writer.put(geometry.inode_bitmaps, &bitmaps[1])
}

/// The first `used` of `valid` bits set, and all bits after them.
fn bitmap(used: u64, valid: u64) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    for (at, byte) in out.iter_mut().enumerate() {
        let first = 8 * at as u64;
        let below = |limit: u64| -> u8 {
            // The bits of this byte whose number is below the limit.
            match limit.saturating_sub(first) {
                0 => 0,
                count @ 1..8 => (1 << count) - 1,
                _ => 0xFF,
            }
        };
        *byte = below(used) | !below(valid);
    }
    out
}

/// Inode tables and what lies between them and the data; the first data block of each file.
fn write_metadata<W: WriteAt + ?Sized>(
    writer: &mut Writer<'_, W>,
    files: &[Planned<'_>],
    geometry: &Geometry,
    meta: u64,
    fs_seed: u32,
) -> Result<Vec<u64>, Error> {
    let mut next = geometry.body;
    let mut next_data = geometry.body + meta;
    let mut places = Vec::with_capacity(files.len());
    let mut table = vec![0; plan::number(files.len() - 1) as usize * INODE];
    for (index, file) in files.iter().enumerate() {
        let number = plan::number(index);
        places.push(next_data);
        let start = next;
        let mut xattr_block = 0;
        if let Some(block) = &file.xattrs.block {
            xattr_block = next;
            let mut block = block.clone();
            xattr::seal(&mut block, next, fs_seed);
            writer.put(next, &block)?;
            next += 1;
        }
        let (extents, block) = match &file.body {
            Body::Inline(block) => (false, *block),
            Body::Dir(_) | Body::Symlink(_) => {
                let bytes = match &file.body {
                    Body::Dir(blocks) => blocks.as_slice(),
                    Body::Symlink(target) => target.as_bytes(),
                    _ => &[],
                };
                let count = bytes.len().div_ceil(BLOCK) as u32;
                let extents = contiguous(&[(0, count)], next);
                // More than four extents are 512 MiB of names.
                let (root, blocks) = extent_tree(&extents, 0, 0);
                if !blocks.is_empty() {
                    return Err(Error::FolderTooBig);
                }
                writer.put(next, bytes)?;
                next += u64::from(count);
                (true, root)
            }
            Body::File(_, runs) => {
                let extents = contiguous(runs, next_data);
                let seed = checksum::of_inode(fs_seed, number, 0);
                let (root, blocks) = extent_tree(&extents, next, seed);
                writer.put(next, &blocks)?;
                next += (blocks.len() / BLOCK) as u64;
                (true, root)
            }
        };
        let inode = Inode {
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            size: file.size,
            links: file.links,
            blocks: next - start + file.data_blocks(),
            time: file.time,
            extents,
            block,
            xattr_block,
            xattrs: &file.xattrs.inode,
        };
        inode.encode(&mut table[(number - 1) as usize * INODE..], number, fs_seed);
        next_data += file.data_blocks();
    }
    debug_assert_eq!(next, geometry.body + meta);
    writer.put(geometry.inode_table, &table)?;
    Ok(places)
}

/// The runs of a file, one after the other from block `first`.
fn contiguous(runs: &[(u32, u32)], first: u64) -> Vec<Extent> {
    let mut physical = first;
    let mut out = Vec::with_capacity(runs.len());
    for &(mut logical, mut rest) in runs {
        while rest > 0 {
            let len = rest.min(MAX_EXTENT);
            out.push(Extent {
                logical,
                physical,
                len,
            });
            logical += len;
            physical += u64::from(len);
            rest -= len;
        }
    }
    out
}

fn write_data<W: WriteAt + ?Sized>(
    writer: &mut Writer<'_, W>,
    bytes: &[u8],
    runs: &Runs,
    first: u64,
) -> Result<(), Error> {
    let mut place = first;
    for &(logical, len) in runs {
        let start = logical as usize * BLOCK;
        let end = (start + len as usize * BLOCK).min(bytes.len());
        writer.put(place, &bytes[start..end])?;
        place += u64::from(len);
    }
    Ok(())
}

/// Joins small writes, and remembers where data went.
struct Writer<'a, W: ?Sized> {
    out: &'a W,
    /// Waiting bytes, whole blocks.
    waiting: Vec<u8>,
    /// Where they go.
    at: u64,
    extents: Extents,
}

impl<'a, W: WriteAt + ?Sized> Writer<'a, W> {
    fn new(out: &'a W) -> Self {
        Self {
            out,
            waiting: Vec::with_capacity(GATHER + DIRECT + BLOCK),
            at: 0,
            extents: Extents::new(),
        }
    }

    /// `bytes` to `block`; the rest of the last block is zero.
    fn put(&mut self, block: u64, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let at = block * BLOCK as u64;
        let end = at + (bytes.len() as u64).next_multiple_of(BLOCK as u64);
        self.extents.add(at..end);
        if at != self.at + self.waiting.len() as u64 {
            self.flush()?;
            self.at = at;
        }
        if bytes.len() >= DIRECT {
            self.flush()?;
            self.write(bytes, at)?;
            self.at = end;
            return Ok(());
        }
        self.waiting.extend_from_slice(bytes);
        self.waiting.resize((end - self.at) as usize, 0);
        if self.waiting.len() >= GATHER {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if !self.waiting.is_empty() {
            self.write(&self.waiting, self.at)?;
            self.at += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        self.out
            .write_all_at(bytes, at)
            .map_err(|source: io::Error| Error::Write { at, source })
    }
}
