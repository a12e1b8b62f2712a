//! Growth: the last partition to the end of its disk, then the mounted file system to the end of
//! its partition.

use std::os::fd::AsRawFd;
use std::path::Path;

use crate::gpt::{Partition, Table};
use crate::superblock::Ext4;
use crate::{Device, Error, ReadAt, Storage};

/// Partitions start and end at multiples of this many bytes.
pub(crate) const ALIGNMENT: u64 = 1 << 20;

/// What [`partition`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The partition as it is now.
    pub partition: Partition,
    /// Its size before, in bytes.
    pub old_bytes: u64,
    /// Its size now, in bytes.
    pub new_bytes: u64,
    /// What was put right in the table besides, in words.
    pub repaired: Vec<String>,
}

/// Whether [`partition`] would write anything.
///
/// # Errors
///
/// There is no table or no such partition, or the disk could not be read.
pub fn is_needed(disk: &mut dyn ReadAt, name: &str) -> Result<bool, Error> {
    let (table, _, grown) = plan(disk, name)?;
    Ok(grown.is_some() || table.grown || !table.problems.is_empty())
}

/// The table, the partition as it is, and its new last sector if it can grow.
fn plan(disk: &mut dyn ReadAt, name: &str) -> Result<(Table, Partition, Option<u64>), Error> {
    let table = Table::read(disk)?;
    let sector = u64::from(disk.sector_size());
    let Some(partition) = table.by_name(name).cloned() else {
        return Err(Error::Table(format!(
            "it has no partition named {name:?}, but {}",
            table.names()
        )));
    };
    let is_last = table
        .partitions
        .iter()
        .all(|other| other.last <= partition.last);
    let align = ALIGNMENT / sector;
    let end = (table.usable_end(disk.size() / sector)? + 1) / align * align;
    let grows = is_last && end > partition.last + 1;
    Ok((table, partition, grows.then(|| end - 1)))
}

/// Grows the partition `name` to the end of its disk if it is the last one there, and puts the
/// table right (both copies whole, the second at the end of the disk). Nothing is written when
/// nothing is needed.
///
/// # Errors
///
/// There is no table or no such partition, or the disk failed. A power cut or an error leaves the
/// old table or the new one.
pub fn partition(disk: &mut dyn Storage, name: &str) -> Result<Growth, Error> {
    let (mut table, mut partition, last) = plan(disk, name)?;
    let sector = u64::from(disk.sector_size());
    let old = partition.sectors();
    let repaired = table.problems.clone();
    if let Some(last) = last {
        partition.last = last;
        table.set_last(partition.number, last)?;
    }
    if last.is_some() || table.grown || !repaired.is_empty() {
        table.commit(disk)?;
    }
    let new_bytes = partition.sectors() * sector;
    Ok(Growth {
        partition,
        old_bytes: old * sector,
        new_bytes,
        repaired,
    })
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

const BLKPG: libc::Ioctl = 0x1269;
const BLKPG_RESIZE_PARTITION: i32 = 3;
const BLKRRPART: libc::Ioctl = 0x125f;
/// `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

/// Tells the kernel the new size of a partition; it may be mounted.
///
/// # Errors
///
/// The kernel refused.
pub fn tell_kernel(disk: &Device, partition: &Partition) -> Result<(), Error> {
    let sector = i64::from(disk.sector_size());
    let mut data = BlkpgPartition {
        start: partition.first as i64 * sector,
        length: partition.sectors() as i64 * sector,
        number: partition.number as i32,
        names: [0; 128],
    };
    let argument = BlkpgArgument {
        operation: BLKPG_RESIZE_PARTITION,
        flags: 0,
        length: size_of::<BlkpgPartition>() as i32,
        data: &raw mut data,
    };
    // SAFETY: the argument and what it points to have the kernel's layout and outlive the call.
    let result = unsafe { libc::ioctl(disk.file().as_raw_fd(), BLKPG, &raw const argument) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::path(
        disk.path(),
        "tell the kernel the new size of a partition of",
    )(std::io::Error::last_os_error()))
}

/// Makes the kernel read the partition table anew; no partition may be in use.
///
/// # Errors
///
/// The kernel refused (`EBUSY`: a partition is in use).
pub fn reread_table(disk: &Device) -> Result<(), Error> {
    // SAFETY: BLKRRPART takes no argument.
    let result = unsafe { libc::ioctl(disk.file().as_raw_fd(), BLKRRPART) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::path(
        disk.path(),
        "make the kernel read the partition table of",
    )(std::io::Error::last_os_error()))
}

/// Grows the ext4 that is mounted at `target` from `device` to the size of the device. Returns its
/// size before and after, in bytes, if it grew.
///
/// # Errors
///
/// The superblock could not be read, or the kernel refused.
pub fn file_system(device: &Path, target: &Path) -> Result<Option<(u64, u64)>, Error> {
    let mut storage = Device::open(device)?;
    let Some(ext4) = Ext4::read(&mut storage)? else {
        return Err(Error::Table(format!("{} holds no ext4", device.display())));
    };
    let blocks = storage.size() / u64::from(ext4.block_size);
    if blocks <= ext4.blocks {
        return Ok(None);
    }
    let folder = std::fs::File::open(target).map_err(Error::path(target, "open"))?;
    // SAFETY: the argument is the number of blocks as a 64-bit integer that outlives the call.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) };
    if result != 0 {
        return Err(Error::path(target, "grow the file system at")(
            std::io::Error::last_os_error(),
        ));
    }
    let bytes = |count: u64| count * u64::from(ext4.block_size);
    Ok(Some((bytes(ext4.blocks), bytes(blocks))))
}
