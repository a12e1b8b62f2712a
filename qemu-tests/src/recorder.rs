//! A disk that remembers every write and flush in order, to cut the power anywhere afterwards, and
//! that fails on demand.
//!
//! A [`Recorder`] serves a private copy of an image to a machine by NBD. Its [`Log`] says what a
//! disk may hold after a power cut, by the rules of the kernel's dm-log-writes:
//!
//! - what was completed before a flush was asked for is durable once that flush is done;
//! - a write with FUA is durable when it is done, and says nothing of those before it;
//! - of the rest, any part may have got to the disk, in any order, and the last one may be torn.
//!
//! A [`Replay`] makes these disks, one [`Cut`] at a time, on one scratch file: forward only, and
//! undone behind each look.
//!
//! The server answers one request after the other, so the log's order is the order in which the
//! guest learned that its writes were done.

mod cut;
mod fault;
mod log;
mod replay;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use crate::nbd::{Backend, Server};

pub use cut::Cut;
pub use fault::{Effect, Fault, Faults, Operation};
pub use log::{Log, Record, Write};
pub use replay::Replay;

/// A recorded disk. Its machine must have ended before it is dropped.
#[derive(Debug)]
pub struct Recorder {
    // First: the server's thread uses the rest.
    server: Server,
    base: PathBuf,
    current: PathBuf,
    size: u64,
    log: Arc<Mutex<Log>>,
    faults: Faults,
}

impl Recorder {
    /// Serves a copy of `base`, made at least `size` bytes long, from files in `folder` (whose path
    /// must be short enough for a socket). `base` must not change as long as cuts are replayed.
    ///
    /// # Errors
    /// If the files cannot be made.
    pub fn start(base: &Path, size: u64, folder: &Path) -> Result<Recorder> {
        let current = folder.join("recorded.raw");
        vm::sparse_copy(base, &current)?;
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&current)
            .with_context(|| format!("cannot open {}", current.display()))?;
        let size = size.max(disk.metadata()?.len());
        disk.set_len(size)
            .with_context(|| format!("cannot enlarge {}", current.display()))?;
        let log = Arc::new(Mutex::new(Log::create(&folder.join("writes.log"))?));
        let faults = Faults::default();
        let backend = Recording {
            disk,
            size,
            log: Arc::clone(&log),
            faults: faults.clone(),
        };
        let socket = folder.join("nbd");
        let server = Server::start(&socket, backend)
            .with_context(|| format!("cannot serve a disk on {}", socket.display()))?;
        Ok(Recorder {
            server,
            base: base.to_owned(),
            current,
            size,
            log,
            faults,
        })
    }

    /// The disk for a machine.
    pub fn disk(&self) -> vm::Disk {
        vm::Disk::nbd(self.server.socket())
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        self.server.socket()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The errors that it makes.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The log so far.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// File with what the guest sees: all writes, flushed or not.
    pub fn current(&self) -> &Path {
        &self.current
    }

    /// Starts to replay what is in the log by now, on a scratch file in `folder`.
    ///
    /// # Errors
    /// If the scratch file cannot be made.
    pub fn replay(&self, folder: &Path) -> Result<Replay> {
        let log = self.log().reader()?;
        self.replay_log(log, folder)
    }

    /// Replays another log than its own, say that of a liar, on a scratch file in `folder`.
    ///
    /// # Errors
    /// As [`Recorder::replay`].
    pub fn replay_log(&self, log: Log, folder: &Path) -> Result<Replay> {
        Replay::new(&self.base, self.size, log, &folder.join("replayed.raw"))
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    // Whoever panicked with it held had read it, or had written whole records.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The back end: a file, the log, and the faults.
struct Recording {
    disk: File,
    size: u64,
    log: Arc<Mutex<Log>>,
    faults: Faults,
}

impl Backend for Recording {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.faults
            .meet(Operation::Read, offset, data.len() as u64)?;
        self.disk.read_exact_at(data, offset)
    }

    fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> io::Result<()> {
        self.faults
            .meet(Operation::Write, offset, data.len() as u64)?;
        self.disk.write_all_at(data, offset)?;
        lock(&self.log).write(offset, data, fua)
    }

    fn zero(&mut self, offset: u64, length: u64, fua: bool, trim: bool) -> io::Result<()> {
        let operation = if trim {
            Operation::Trim
        } else {
            Operation::Write
        };
        self.faults.meet(operation, offset, length)?;
        replay::punch(&self.disk, offset, length)?;
        lock(&self.log).zero(offset, length, fua);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // To the host's disk nothing needs to go: the host stays up.
        self.faults.meet(Operation::Flush, 0, self.size)?;
        lock(&self.log).flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
