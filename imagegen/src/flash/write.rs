//! Writing: an order in which an interrupted flash never boots half.
//!
//! 1. Both copies of the old partition table, and all that a firmware could boot without one, are
//!    cleared; flush. Until then the old content is whole, from then on nothing on the disk boots.
//! 2. The ranges of the partitions that must not show what was there before are cleared; root, hash
//!    tree, state and `/cas` are written, then the ESP with the boot loader; flush.
//! 3. All of it is read back from the medium and compared.
//! 4. Only now the table: the copy at the end; flush; the first copy; flush; the protective MBR;
//!    flush. Whoever believes any of these finds everything behind it whole.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use formats::fat;
use formats::gpt::{ALIGNMENT, Layout, Partition, Role, SectorSize, read as read_table};
use formats::region::{ReadAt, Region, WriteAt, is_zero};
use formats::tree::Tree;

use super::image::{Image, esp_tree};
use super::meter::Meter;
use super::target::Target;
use crate::image::Esp;

/// The most bytes that are on their way to the medium without a flush, so that the progress shown
/// is that of the disk.
const UNFLUSHED: u64 = 64 << 20;
/// Bytes that are copied or compared at once.
const PIECE: usize = 1 << 20;
/// Bytes that are left out if they are zero.
const GRAIN: usize = 64 << 10;
/// The most bytes that are cleared without asking for Ctrl-C.
const CLEARED: u64 = 256 << 20;

/// Bytes at either end of a disk that hold the MBR and the header of a table, whatever its sectors,
/// and never a part of a partition.
const HEADERS: u64 = 8192;

/// What is to be written.
pub(super) struct Job<'a> {
    pub(super) image: &'a Image,
    pub(super) layout: &'a Layout,
    /// The ESP's files, the machine's name among them.
    pub(super) esp: &'a Tree,
    /// Serial number of the ESP's file system.
    pub(super) volume_id: u32,
    /// Seconds since 1970, the time of the ESP's files.
    pub(super) clock: i64,
}

/// Partitions whose bytes are those of the image.
const COPIED: [Role; 4] = [Role::RootA, Role::RootAVerity, Role::State, Role::Cas];

/// Writes everything, and checks it.
///
/// # Errors
/// The disk failed, or does not hold what was written. It has no partition table then, and does
/// not boot.
pub(super) fn write<T: Target + ?Sized>(target: &T, job: &Job<'_>, meter: &Meter) -> Result<()> {
    let size = job.layout.disk_size;
    // The headers first: an old partition may begin before 1 MiB.
    for reach in [HEADERS, ALIGNMENT] {
        target
            .clear(0..reach)
            .and_then(|()| target.clear(size - reach..size))
            .and_then(|()| target.flush())
            .context("the old partition table cannot be cleared")?;
    }
    target.reread();
    clear(target, job, meter)?;
    copy(target, job, meter)?;
    write_esp(target, job)?;
    verify(target, job, meter)?;
    write_table(target, job.layout)?;
    target.reread();
    Ok(())
}

/// What must read as zero before anything is written, in order: where a partition's content is to
/// lie, and both ends of all others, where signatures of file systems are.
fn cleared(job: &Job<'_>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for partition in &job.layout.partitions {
        let content = match partition.role {
            Role::Esp => partition.size,
            role => job.image.part(role).map_or(0, |part| length(&part)),
        };
        let head = content
            .next_multiple_of(job.layout.sector.bytes())
            .max(ALIGNMENT)
            .min(partition.size);
        let tail = (partition.size - ALIGNMENT).max(head);
        ranges.push(partition.start..partition.start + head);
        ranges.push(partition.start + tail..partition.end());
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Bytes of a part.
pub(super) fn length<D: ReadAt + ?Sized>(part: &D) -> u64 {
    // A region knows its size.
    part.size().unwrap_or_default()
}

fn clear<T: Target + ?Sized>(target: &T, job: &Job<'_>, meter: &Meter) -> Result<()> {
    let ranges = cleared(job);
    meter.start(
        "clear",
        ranges.iter().map(|range| range.end - range.start).sum(),
    );
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + CLEARED);
            target
                .clear(at..end)
                .with_context(|| format!("clearing byte {at} of the disk failed"))?;
            meter.add(end - at)?;
            at = end;
        }
    }
    target.flush().context("the disk cannot be flushed")?;
    meter.finish();
    Ok(())
}

/// The partitions to copy: role, place on the disk.
fn copied<'a>(job: &'a Job<'_>) -> impl Iterator<Item = &'a Partition> {
    COPIED.into_iter().filter_map(|role| job.layout.get(role))
}

fn copy<T: Target + ?Sized>(target: &T, job: &Job<'_>, meter: &Meter) -> Result<()> {
    let mut total = 0;
    for partition in copied(job) {
        total += job
            .image
            .data(partition.role)
            .iter()
            .map(|r| r.end - r.start)
            .sum::<u64>();
    }
    meter.start("write", total);
    let mut unflushed = 0;
    let mut piece = vec![0; PIECE];
    for partition in copied(job) {
        let what = || format!("partition {}", partition.role.name());
        let part = job
            .image
            .part(partition.role)
            .with_context(|| format!("the image has no {}", what()))?;
        let to = Region::new(target, partition.start, partition.size);
        for range in job.image.data(partition.role) {
            let mut at = range.start;
            while at < range.end {
                let room = PIECE.min((range.end - at) as usize);
                let piece = &mut piece[..room];
                part.read_exact_at(piece, at)
                    .with_context(|| format!("reading the image failed: {}", what()))?;
                put(&to, at, piece)
                    .with_context(|| format!("writing to the disk failed: {}", what()))?;
                at += room as u64;
                unflushed += room as u64;
                if unflushed >= UNFLUSHED {
                    target.flush().context("the disk cannot be flushed")?;
                    unflushed = 0;
                }
                meter.add(room as u64)?;
            }
        }
    }
    target.flush().context("the disk cannot be flushed")?;
    meter.finish();
    Ok(())
}

/// Writes what is not zero of `bytes`: neighbours at once.
fn put<D: WriteAt + ?Sized>(to: &D, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut start = None;
    for (index, grain) in bytes.chunks(GRAIN).enumerate() {
        let here = index * GRAIN;
        match (is_zero(grain), start) {
            (false, None) => start = Some(here),
            (true, Some(from)) => {
                to.write_all_at(&bytes[from..here], at + from as u64)?;
                start = None;
            }
            _ => {}
        }
    }
    match start {
        Some(from) => to.write_all_at(&bytes[from..], at + from as u64),
        None => Ok(()),
    }
}

fn esp<'a>(job: &'a Job<'_>) -> Result<&'a Partition> {
    job.layout.get(Role::Esp).context("the layout has no ESP")
}

fn write_esp<T: Target + ?Sized>(target: &T, job: &Job<'_>) -> Result<()> {
    let partition = esp(job)?;
    let to = Region::new(target, partition.start, partition.size);
    fat::write(job.esp, &esp_options(job, partition.size), &to)
        .context("writing the ESP failed")?;
    target.flush().context("the disk cannot be flushed")
}

/// How the ESP is made on a disk.
fn esp_options(job: &Job<'_>, size: u64) -> fat::Options {
    fat::Options {
        size,
        sector: job.layout.sector,
        label: job.image.esp_label.clone(),
        volume_id: job.volume_id,
        clock: job.clock,
    }
}

/// Whether the files fit on the ESP of a disk, before anything is written to it.
///
/// # Errors
/// They do not.
pub(super) fn check_esp(job: &Job<'_>) -> Result<()> {
    /// Takes everything, keeps nothing.
    struct Nowhere;
    impl WriteAt for Nowhere {
        fn write_all_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
            Ok(())
        }
    }
    let options = esp_options(job, esp(job)?.size);
    fat::write(job.esp, &options, &Nowhere).context("the ESP of the disk cannot be made")?;
    Ok(())
}

/// Compares everything with what should be there.
fn verify<T: Target + ?Sized>(target: &T, job: &Job<'_>, meter: &Meter) -> Result<()> {
    target.forget().context("the disk cannot be flushed")?;
    let ranges = cleared(job);
    meter.start(
        "verify",
        ranges.iter().map(|range| range.end - range.start).sum(),
    );
    let (mut have, mut want) = (vec![0; PIECE], vec![0; PIECE]);
    for range in ranges {
        let partition = job
            .layout
            .partitions
            .iter()
            .find(|partition| partition.start <= range.start && range.end <= partition.end())
            .context("a range of no partition")?;
        if partition.role == Role::Esp {
            check_written_esp(target, job)?;
            meter.add(range.end - range.start)?;
            continue;
        }
        let part = job.image.part(partition.role);
        let mut at = range.start;
        while at < range.end {
            let room = PIECE.min((range.end - at) as usize);
            let (have, want) = (&mut have[..room], &mut want[..room]);
            let name = partition.role.name();
            target
                .read_exact_at(have, at)
                .with_context(|| format!("reading back byte {at} of the disk ({name}) failed"))?;
            expected(part.as_ref(), at - partition.start, want)?;
            if let Some(wrong) = have.iter().zip(&*want).position(|(a, b)| a != b) {
                bail!(
                    "byte {} of the disk (partition {name}) is not what was written: the disk is \
                     broken, or not as large as it says",
                    at + wrong as u64
                );
            }
            meter.add(room as u64)?;
            at += room as u64;
        }
    }
    meter.finish();
    Ok(())
}

/// What a partition holds from byte `at`: the image's bytes, then zeros.
fn expected<D: ReadAt + ?Sized>(part: Option<&D>, at: u64, out: &mut [u8]) -> Result<()> {
    out.fill(0);
    let Some(part) = part else { return Ok(()) };
    let left = length(part).saturating_sub(at);
    let room = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    if room > 0 {
        part.read_exact_at(&mut out[..room], at)
            .context("reading the image failed")?;
    }
    Ok(())
}

fn check_written_esp<T: Target + ?Sized>(target: &T, job: &Job<'_>) -> Result<()> {
    let partition = esp(job)?;
    let region = Region::new(target, partition.start, partition.size);
    let found = Esp::read(&region).context("the ESP cannot be read back")?;
    let found = esp_tree(&found)?;
    let same = found.len() == job.esp.len()
        && found
            .iter()
            .zip(job.esp.iter())
            .all(|((a, x), (b, y))| a == b && x.kind == y.kind);
    ensure!(
        same,
        "the ESP does not hold what was written: the disk is broken"
    );
    Ok(())
}

/// The commit: see the module.
fn write_table<T: Target + ?Sized>(target: &T, layout: &Layout) -> Result<()> {
    let [(_, primary), (at, backup)] = layout.encode()?;
    let sector = layout.sector.bytes() as usize;
    let (mbr, primary) = primary.split_at(sector);
    for (bytes, offset) in [(&*backup, at), (primary, sector as u64), (mbr, 0)] {
        target
            .write_all_at(bytes, offset)
            .and_then(|()| target.flush())
            .context("writing the partition table failed")?;
    }
    target.forget().context("the disk cannot be flushed")?;
    check_table(target, layout, layout.sector)
}

fn check_table<T: ReadAt + ?Sized>(target: &T, layout: &Layout, sector: SectorSize) -> Result<()> {
    let table =
        read_table(target, Some(sector)).context("the partition table cannot be read back")?;
    ensure!(
        table.defects.is_empty() && table.header.disk_guid == layout.disk_guid,
        "the partition table is not what was written: the disk is broken"
    );
    Ok(())
}
