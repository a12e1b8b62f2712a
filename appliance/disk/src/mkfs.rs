//! Making the file system of a pristine partition, at its real size, so that a power cut at any
//! write leaves a partition that is still pristine or one that is whole.
//!
//! mke2fs never writes to the partition. It makes the file system in memory, in a sparse file of
//! the partition's exact size (480 GB cost 7 MB); then every byte of it that was written is copied
//! to the partition except the sector that holds the first half of the superblock, with magic and
//! label; flush; then that one sector; flush. Until then the partition says that it is pristine,
//! and the next boot begins anew.
//!
//! What mke2fs does not write is not copied, so the partition keeps old bytes there. That is safe:
//! block groups without inodes are marked uninitialised, inode tables are not marked as zeroed (the
//! kernel zeroes them in the background), and mke2fs writes zeros as zeros instead of punching
//! holes (`UNIX_IO_NOZEROOUT`). Old bytes in the area of the new journal could be taken for
//! transactions of it if their sequence numbers fitted: so the new journal starts at a random one.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use uuid::Uuid;

use crate::superblock::{self, Ext4};
use crate::{Error, Storage, command};

/// mke2fs needs a tenth of a second for 4 TiB.
const DEADLINE: Duration = Duration::from_secs(120);
/// Bytes copied at a time.
const CHUNK: u64 = 1 << 20;
/// Size of a block, always: it suits sectors of 512 and 4096 bytes and the page size.
const BLOCK: u64 = 4096;
/// How the superblock of a journal begins (jbd2): magic, block type 4, both big-endian.
const JOURNAL: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
/// Where in it the sequence number of the first transaction is, big-endian.
const JOURNAL_SEQUENCE: usize = 24;

/// Makes an ext4 labelled `label` on `partition`, which has to be pristine. `words` are options for
/// mke2fs from the configuration. Returns the UUID of the new file system.
///
/// # Errors
///
/// The partition is not pristine (nothing was written), mke2fs failed (nothing was written), or the
/// partition failed (it is still pristine).
pub fn make(partition: &mut dyn Storage, label: &str, words: &[String]) -> Result<Uuid, Error> {
    match Ext4::read(partition)? {
        Some(found) if found.is_pristine() => {}
        _ => {
            return Err(Error::Refused(
                "the partition is not pristine, it is left alone".into(),
            ));
        }
    }
    let uuid = crate::random_uuid()?;
    let file = make_in_memory(partition.size(), label, uuid, words)?;
    copy(&file, partition)?;
    Ok(uuid)
}

/// The file system as a sparse file in memory.
fn make_in_memory(size: u64, label: &str, uuid: Uuid, words: &[String]) -> Result<File, Error> {
    let blocks = size / BLOCK;
    let memory = Error::path("/memfd:mkfs", "make a file in memory");
    let file: File = memfd_create("mkfs", MemfdFlags::CLOEXEC)
        .and_then(|fd| rustix::fs::ftruncate(&fd, blocks * BLOCK).map(|()| fd.into()))
        .map_err(|error| memory(error.into()))?;
    // mke2fs opens it by name; the name is good while this process holds the file.
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let arguments = arguments(label, uuid, words, &path, blocks);
    command::run_ok(
        "mke2fs",
        &arguments,
        &[("UNIX_IO_NOZEROOUT", "1")],
        DEADLINE,
    )?;

    let mut half = [0; superblock::HALF];
    file.read_exact_at(&mut half, superblock::OFFSET)
        .map_err(Error::path(&path, "read the superblock of"))?;
    let expected = Ext4 {
        label: label.into(),
        uuid,
        blocks,
        block_size: BLOCK as u32,
    };
    match Ext4::parse(&half) {
        Some(found) if found == expected => {}
        found => return Err(Error::Made(format!("{found:?} instead of {expected:?}"))),
    }
    let mut sequence = [0; 4];
    crate::random(&mut sequence)?;
    set_journal_sequence(&file, u32::from_ne_bytes(sequence))?;
    Ok(file)
}

/// Arguments for mke2fs. `-E` may be given once only, so the configuration's is joined with ours.
fn arguments(label: &str, uuid: Uuid, words: &[String], path: &str, blocks: u64) -> Vec<String> {
    let mut extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0".to_owned();
    let mut arguments: Vec<String> = [
        "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-L", label,
    ]
    .map(Into::into)
    .into();
    arguments.extend(["-U".into(), uuid.to_string()]);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "-E" {
            if let Some(more) = words.next() {
                extended = format!("{extended},{more}");
            }
        } else {
            arguments.push(word.clone());
        }
    }
    arguments.extend(["-E".into(), extended, path.into(), blocks.to_string()]);
    arguments
}

/// Lets the journal begin at a random transaction number: what an older journal left on the
/// partition then cannot be taken for a continuation of this one.
fn set_journal_sequence(file: &File, random: u32) -> Result<(), Error> {
    let mut found = None;
    for_each_extent(file, |offset, data| {
        for (index, block) in data.chunks_exact(BLOCK as usize).enumerate() {
            if block[..8] == JOURNAL {
                if found.is_some() {
                    return Err(Error::Made("it has two journals".into()));
                }
                found = Some(offset + index as u64 * BLOCK);
            }
        }
        Ok(())
    })?;
    let Some(offset) = found else {
        // `-O ^has_journal` is the configuration's choice.
        return Ok(());
    };
    // Far from wrapping around, and never 0.
    let sequence = (random >> 1).max(1);
    file.write_all_at(&sequence.to_be_bytes(), offset + JOURNAL_SEQUENCE as u64)
        .map_err(Error::path("/memfd:mkfs", "write"))
}

/// Copies what was written of `file` to the partition, the sector that counts last.
fn copy(file: &File, partition: &mut dyn Storage) -> Result<(), Error> {
    let sector = u64::from(partition.sector_size());
    let start = superblock::OFFSET / sector * sector;
    let end = (superblock::OFFSET + superblock::HALF as u64).div_ceil(sector) * sector;
    let mut last = vec![0; (end - start) as usize];
    file.read_exact_at(&mut last, start)
        .map_err(Error::path("/memfd:mkfs", "read"))?;
    for_each_extent(file, |offset, data| {
        let until = offset + data.len() as u64;
        let before = start.clamp(offset, until) - offset;
        let after = end.clamp(offset, until) - offset;
        if before > 0 {
            partition.write_at(offset, &data[..before as usize])?;
        }
        if (after as usize) < data.len() {
            partition.write_at(offset + after, &data[after as usize..])?;
        }
        Ok(())
    })?;
    partition.flush()?;
    partition.write_at(start, &last)?;
    partition.flush()
}

/// Calls `each` with offset and bytes of everything in a sparse file that is no hole.
fn for_each_extent(
    file: &File,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed =
        |action| move |error: rustix::io::Errno| Error::path("/memfd:mkfs", action)(error.into());
    let mut buffer = vec![0; CHUNK as usize];
    let mut at = 0;
    loop {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data after `at`.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(failed("find data in")(error)),
        };
        let end = seek(file, SeekFrom::Hole(at)).map_err(failed("find a hole in"))?;
        while at < end {
            let length = (end - at).min(CHUNK) as usize;
            file.read_exact_at(&mut buffer[..length], at)
                .map_err(Error::path("/memfd:mkfs", "read"))?;
            each(at, &buffer[..length])?;
            at += length as u64;
        }
    }
}

#[cfg(test)]
mod tests;
