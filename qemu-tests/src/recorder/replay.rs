//! Disks as power cuts leave them, made on one scratch file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};

use super::cut::{Cut, durable};
use super::log::{Log, Record, Write};

/// Replays a log onto a copy of the disk it was recorded on.
#[derive(Debug)]
pub struct Replay {
    log: Log,
    path: PathBuf,
    disk: File,
    /// Number of records that are on the scratch file for good.
    done: usize,
}

impl Replay {
    /// Starts with a copy of `base`, made at least `size` bytes long, in `scratch`.
    ///
    /// # Errors
    /// If the copy cannot be made.
    pub fn new(base: &Path, size: u64, log: Log, scratch: &Path) -> Result<Replay> {
        vm::sparse_copy(base, scratch)?;
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(scratch)
            .with_context(|| format!("cannot open {}", scratch.display()))?;
        if disk.metadata()?.len() < size {
            disk.set_len(size)
                .with_context(|| format!("cannot enlarge {}", scratch.display()))?;
        }
        Ok(Replay {
            log,
            path: scratch.to_owned(),
            disk,
            done: 0,
        })
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Makes the disk of `cut` and shows it to `look`, which must not change it: what is not
    /// durable is undone afterwards.
    ///
    /// # Errors
    /// If the cut lies before an earlier one's durable part (sort them by [`Cut::at`]), or names a
    /// record that is not a loss a power cut can make; and what `look` returns.
    pub fn with<T>(&mut self, cut: &Cut, look: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.check(cut)?;
        let durable = durable(self.log.records(), cut.at);
        for index in self.done..durable {
            if let Record::Write(write) = &self.log.records()[index] {
                self.apply(write, write.length)?;
            }
        }
        self.done = self.done.max(durable);
        let mut undo = Vec::new();
        for index in self.done..cut.at {
            let Record::Write(write) = &self.log.records()[index] else {
                continue;
            };
            if cut.lost.binary_search(&index).is_ok() {
                continue;
            }
            let length = match cut.torn {
                Some((torn, length)) if torn == index => length,
                _ => write.length,
            };
            let mut before = vec![0; usize::try_from(length)?];
            self.disk.read_exact_at(&mut before, write.offset)?;
            undo.push((write.offset, before));
            self.apply(write, length)?;
        }
        let outcome = look(&self.path);
        for (offset, before) in undo.iter().rev() {
            self.disk.write_all_at(before, *offset)?;
        }
        outcome
    }

    /// Makes the disk of `cut` in a file of its own.
    ///
    /// # Errors
    /// As [`Replay::with`]; or `to` exists.
    pub fn materialise(&mut self, cut: &Cut, to: &Path) -> Result<()> {
        self.with(cut, |disk| Ok(vm::sparse_copy(disk, to)?))
    }

    fn check(&self, cut: &Cut) -> Result<()> {
        let records = self.log.records();
        ensure!(
            cut.at <= records.len(),
            "the log has {} records, not {}",
            records.len(),
            cut.at
        );
        let durable = durable(records, cut.at);
        ensure!(
            self.done <= durable,
            "cut after {} records: the disk is {} records further already",
            cut.at,
            self.done
        );
        ensure!(
            cut.lost.is_sorted(),
            "the lost records of a cut come in order"
        );
        for &index in &cut.lost {
            let losable = index >= durable
                && index < cut.at
                && matches!(&records[index], Record::Write(write) if !write.fua);
            ensure!(
                losable,
                "record {index} cannot be lost by a cut after {}",
                cut.at
            );
        }
        Ok(())
    }

    /// Writes the first `length` bytes of a write.
    fn apply(&self, write: &Write, length: u64) -> Result<()> {
        match self.log.data(write)? {
            Some(data) => self
                .disk
                .write_all_at(&data[..usize::try_from(length)?], write.offset),
            None => punch(&self.disk, write.offset, length),
        }
        .with_context(|| format!("cannot write to {}", self.path.display()))
    }
}

/// Writes zeros, as a hole where the file system can.
pub(super) fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if fallocate(file, flags, offset, length).is_ok() {
        return Ok(());
    }
    let zeros = vec![0; 1 << 20];
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let room = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        file.write_all_at(&zeros[..room], at)?;
        at += room as u64;
    }
    Ok(())
}
