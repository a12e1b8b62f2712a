//! The log: what was asked of the disk, in order; the data in a file beside it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::cut::{Cut, Random};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// Where its data are in the log's file; none: zeros.
    pub(super) data: Option<u64>,
    /// Durable when done.
    pub fua: bool,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Data, zeros, or a discard (which is taken for zeros).
    Write(Write),
    /// What came before is durable.
    Flush,
}

/// A log of writes and flushes. Something else than a [`super::Recorder`] may write one too: what
/// writes to a disk without a machine is tested by the same cuts.
#[derive(Debug)]
pub struct Log {
    file: File,
    end: u64,
    records: Vec<Record>,
    marks: Vec<(usize, String)>,
}

impl Log {
    /// An empty log with its data in `path`.
    ///
    /// # Errors
    /// If the file exists or cannot be made.
    pub fn create(path: &Path) -> Result<Log> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Log {
            file,
            end: 0,
            records: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// Adds a write.
    ///
    /// # Errors
    /// If the data cannot be stored.
    pub fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> io::Result<()> {
        self.file.write_all_at(data, self.end)?;
        let length = data.len() as u64;
        self.records.push(Record::Write(Write {
            offset,
            length,
            data: Some(self.end),
            fua,
        }));
        self.end += length;
        Ok(())
    }

    /// Adds a write of zeros.
    pub fn zero(&mut self, offset: u64, length: u64, fua: bool) {
        self.records.push(Record::Write(Write {
            offset,
            length,
            data: None,
            fua,
        }));
    }

    /// Adds a flush.
    pub fn flush(&mut self) {
        self.records.push(Record::Flush);
    }

    /// Names this moment.
    pub fn mark(&mut self, name: impl Into<String>) {
        self.marks.push((self.records.len(), name.into()));
    }

    /// The moment of that name: how many records came before it.
    pub fn find_mark(&self, name: &str) -> Option<usize> {
        self.marks
            .iter()
            .find(|(_, its)| its == name)
            .map(|(at, _)| *at)
    }

    /// The records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was asked of the disk.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// In words: `812 writes of 40 MiB, 31 flushes`.
    pub fn summary(&self) -> String {
        let flushes = self.flushes().count();
        let writes = self.records.len() - flushes;
        format!(
            "{writes} writes of {} KiB, {flushes} flushes",
            self.end >> 10
        )
    }

    /// Indexes of the flushes.
    pub fn flushes(&self) -> impl Iterator<Item = usize> + '_ {
        let flush = |(index, record): (usize, &Record)| (*record == Record::Flush).then_some(index);
        self.records.iter().enumerate().filter_map(flush)
    }

    /// A cut behind every flush, with nothing lost, and one before everything.
    pub fn flush_cuts(&self) -> Vec<Cut> {
        std::iter::once(0)
            .chain(self.flushes().map(|flush| flush + 1))
            .map(Cut::after)
            .collect()
    }

    /// `per_interval` cuts between each flush and the next (and behind the last), each with some
    /// of the writes that were not durable lost, and perhaps the last one torn. The same seed
    /// gives the same cuts; they come in the order a [`super::Replay`] wants.
    pub fn sampled_cuts(&self, per_interval: usize, seed: u64) -> Vec<Cut> {
        let mut random = Random::new(seed);
        let mut cuts = Vec::new();
        let mut start = 0;
        for end in self.flushes().chain(std::iter::once(self.records.len())) {
            if end > start {
                for _ in 0..per_interval {
                    cuts.push(Cut::sample(&self.records, start, end, &mut random));
                }
            }
            start = end + 1;
        }
        cuts
    }

    /// All data that a write has, for a replay.
    pub(super) fn data(&self, write: &Write) -> io::Result<Option<Vec<u8>>> {
        let Some(at) = write.data else {
            return Ok(None);
        };
        let length = usize::try_from(write.length).map_err(io::Error::other)?;
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, at)?;
        Ok(Some(data))
    }

    /// The log of a disk that lies: no flush, nothing durable when done. A test of cuts that it
    /// passes shows nothing.
    ///
    /// # Errors
    /// If no file descriptor is free.
    pub fn of_a_liar(&self) -> Result<Log> {
        let mut log = self.reader()?;
        let flushes: Vec<usize> = self.flushes().collect();
        for (at, _) in &mut log.marks {
            *at -= flushes.partition_point(|flush| flush < at);
        }
        log.records.retain(|record| *record != Record::Flush);
        for record in &mut log.records {
            if let Record::Write(write) = record {
                write.fua = false;
            }
        }
        Ok(log)
    }

    /// The log as it is now, to be read while this one goes on.
    ///
    /// # Errors
    /// If no file descriptor is free.
    pub fn reader(&self) -> Result<Log> {
        let file = self
            .file
            .try_clone()
            .context("cannot duplicate the log's file")?;
        let (records, marks) = (self.records.clone(), self.marks.clone());
        Ok(Log {
            file,
            end: self.end,
            records,
            marks,
        })
    }
}
