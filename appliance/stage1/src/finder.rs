//! Waiting for the boot disk: disks appear when they like, and a dead one may never answer.

use std::path::Path;
use std::time::{Duration, Instant};

use disk::gpt::Table;
use disk::sysfs::{self, Disk};
use disk::{Error, ReadAt};

use crate::TWO_CANDIDATES;
use crate::bootdisk::{self, BootDisk, Parts, Wanted};
use crate::cmdline::RootHash;
use crate::console::{Fatal, Log};
use crate::watchdog::Watchdog;
use crate::worker::{self, Worker};

/// Between two looks.
const TICK: Duration = Duration::from_millis(20);
/// A choice stands when no disk has appeared for so long: a twin would be there by then.
const SETTLED: Duration = Duration::from_millis(250);
/// A disk that has not answered for so long does not count.
const PATIENCE: Duration = Duration::from_secs(10);
/// A disk that could not be read is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// How long partitions other than root and verity may take.
const OTHERS: Duration = Duration::from_secs(20);
/// When to speak about the wait, and how often.
const SPEAK: Duration = Duration::from_secs(20);
const SPEAK_AGAIN: Duration = Duration::from_secs(5);
/// When to reboot.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Bytes read at both ends of a disk: both copies of every usual table.
const WINDOW: u64 = 64 * 1024;

/// Looks for the boot disk.
pub(crate) struct Finder {
    wanted: Wanted,
    seen: Vec<Seen>,
    /// When the last new disk appeared.
    news: Instant,
}

struct Seen {
    disk: Disk,
    state: State,
}

enum State {
    Asked(Worker, Instant),
    Silent,
    Failed(String, Instant),
    NoTable(String),
    Read(Table),
}

impl Finder {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            seen: Vec::new(),
            news: Instant::now(),
        }
    }

    /// Waits for the boot disk and its partitions.
    pub(crate) fn find(
        &mut self,
        hash: &RootHash,
        watchdog: &mut Watchdog,
        log: &mut Log,
    ) -> Result<BootDisk, Fatal> {
        let start = Instant::now();
        let mut speak = start + SPEAK;
        loop {
            self.look(log);
            let missing = match self.choice()? {
                None => self.describe_absence(),
                Some(_) if !self.is_settled() => "the other disks to answer".into(),
                Some((disk, table)) => {
                    let of = format!("of {}", disk.node().display());
                    match self.with_nodes(disk, table, hash)? {
                        // Without the others the machine boots, but they have their time.
                        Ok((_, missing)) if !missing.is_empty() && start.elapsed() < OTHERS => {
                            format!("{} {of}", missing.join(", "))
                        }
                        Ok((found, missing)) => {
                            for missing in missing {
                                log.warn(&format!("the kernel does not have {missing} {of}"));
                            }
                            for problem in &table.problems {
                                log.warn(&format!("{}: partition table: {problem}", found.node));
                            }
                            log.step(&format!("booting from {}, slot {}", found.node, found.slot));
                            return Ok(found);
                        }
                        Err(missing) => format!("{missing} {of}"),
                    }
                }
            };
            let now = Instant::now();
            if now >= speak {
                log.warn(&format!("still waiting for {missing}"));
                speak = now + SPEAK_AGAIN;
            }
            if now - start >= GIVE_UP {
                return Err(Fatal::new(format!("gave up waiting for {missing}")));
            }
            watchdog.ping();
            std::thread::sleep(TICK);
        }
    }

    /// Looks once more, just before the root becomes `/`.
    pub(crate) fn recheck(&mut self, log: &mut Log) -> Result<(), Fatal> {
        let end = Instant::now() + RETRY;
        self.look(log);
        while self.is_asking() && Instant::now() < end {
            std::thread::sleep(TICK);
            self.look(log);
        }
        self.choice().map(drop)
    }

    /// Takes in new disks and new answers.
    fn look(&mut self, log: &mut Log) {
        for disk in sysfs::disks(Path::new(sysfs::BLOCK)) {
            if !self.seen.iter().any(|seen| seen.disk.name == disk.name) {
                self.news = Instant::now();
                let state = ask(&disk);
                self.seen.push(Seen { disk, state });
            }
        }
        for seen in &mut self.seen {
            let node = seen.disk.node();
            let now = Instant::now();
            let next = match &mut seen.state {
                State::Asked(worker, since) => match worker.finished() {
                    Some(Ok(bytes)) => match Table::read(&mut Ends::new(&seen.disk, bytes)) {
                        Ok(table) => State::Read(table),
                        Err(error) => State::NoTable(error.to_string()),
                    },
                    Some(Err(error)) => State::Failed(error.to_string(), now),
                    None if now - *since > PATIENCE => {
                        log.warn(&format!("{} does not answer", node.display()));
                        State::Silent
                    }
                    None => continue,
                },
                State::Failed(_, since) if now - *since > RETRY => ask(&seen.disk),
                _ => continue,
            };
            seen.state = next;
        }
    }

    fn is_asking(&self) -> bool {
        self.seen
            .iter()
            .any(|seen| matches!(seen.state, State::Asked(..)))
    }

    fn is_settled(&self) -> bool {
        !self.is_asking() && self.news.elapsed() >= SETTLED
    }

    /// The one candidate so far; two are fatal.
    fn choice(&self) -> Result<Option<(&Disk, &Table)>, Fatal> {
        let tables = self
            .seen
            .iter()
            .enumerate()
            .filter_map(|(index, seen)| match &seen.state {
                State::Read(table) => Some((index, table)),
                _ => None,
            });
        let found = bootdisk::candidates(self.wanted, tables);
        match found.as_slice() {
            [] => Ok(None),
            [one] => match &self.seen[*one].state {
                State::Read(table) => Ok(Some((&self.seen[*one].disk, table))),
                _ => Ok(None),
            },
            several => Err(Fatal::after(TWO_CANDIDATES, {
                let names: Vec<_> = several
                    .iter()
                    .map(|&index| self.seen[index].disk.node().display().to_string())
                    .collect();
                format!(
                    "{} could all be the boot disk ({}); take out all but one of them",
                    names.join(" and "),
                    self.described()
                )
            })),
        }
    }

    /// What all candidates share, in words.
    fn described(&self) -> String {
        match self.wanted {
            Wanted::Esp(guid) => format!("each has the ESP {guid}"),
            Wanted::RootPair(hash) => format!("each has the root of {hash}"),
        }
    }

    fn with_nodes(
        &self,
        disk: &Disk,
        table: &Table,
        hash: &RootHash,
    ) -> Result<Result<(BootDisk, Vec<String>), String>, Fatal> {
        let parts: Parts = bootdisk::parts(table, self.wanted, hash).map_err(|reason| {
            Fatal::after(
                TWO_CANDIDATES,
                format!("the boot disk {} {reason}", disk.node().display()),
            )
        })?;
        Ok(BootDisk::new(Path::new(sysfs::BLOCK), disk, &parts))
    }

    /// What is waited for and what is there instead, in words.
    fn describe_absence(&self) -> String {
        let what = match self.wanted {
            Wanted::Esp(guid) => format!("the disk with the ESP {guid}"),
            Wanted::RootPair(hash) => {
                format!(
                    "a disk with partitions {} and {}",
                    hash.root_guid(),
                    hash.verity_guid()
                )
            }
        };
        let disks: Vec<_> = self
            .seen
            .iter()
            .map(|seen| {
                let node = seen.disk.node();
                let node = node.display();
                match &seen.state {
                    State::Asked(..) | State::Silent => format!("{node} does not answer"),
                    State::Failed(reason, _) => format!("{node} is not readable ({reason})"),
                    State::NoTable(reason) => format!("{node}: {reason}"),
                    State::Read(table) => format!("{node} has {}", table.names()),
                }
            })
            .collect();
        if disks.is_empty() {
            return format!("{what}; there is no disk at all");
        }
        format!("{what}; {}", disks.join("; "))
    }
}

fn ask(disk: &Disk) -> State {
    match worker::start_read(&disk.node(), &Ends::ranges(disk.size)) {
        Ok(worker) => State::Asked(worker, Instant::now()),
        Err(error) => State::Failed(error.to_string(), Instant::now()),
    }
}

/// Both ends of a disk.
struct Ends {
    bytes: Vec<u8>,
    size: u64,
    sector_size: u32,
}

impl Ends {
    fn new(disk: &Disk, bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            size: disk.size,
            sector_size: disk.sector_size,
        }
    }

    fn ranges(size: u64) -> [(u64, usize); 2] {
        let length = size.min(WINDOW);
        // At most 64 KiB.
        [(0, length as usize), (size - length, length as usize)]
    }
}

impl ReadAt for Ends {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let mut base = 0;
        for (start, length) in Self::ranges(self.size) {
            let inside = offset.checked_sub(start).and_then(|at| {
                let at = usize::try_from(at).ok()?;
                let end = at.checked_add(buffer.len()).filter(|&end| end <= length)?;
                self.bytes.get(base + at..base + end)
            });
            if let Some(bytes) = inside {
                buffer.copy_from_slice(bytes);
                return Ok(());
            }
            base += length;
        }
        Err(Error::Transfer {
            action: "read",
            offset,
            length: buffer.len() as u64,
            cause: std::io::Error::other("only both ends of the disk are looked at"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_enough_for_a_table() {
        let size: u64 = 1 << 20;
        for sector_size in [512u32, 4096] {
            let disk = Disk {
                name: "sda".into(),
                size,
                sector_size,
            };
            let mut whole = vec![0u8; size as usize];
            for (index, byte) in whole.iter_mut().enumerate() {
                *byte = index as u8;
            }
            let mut bytes = Vec::new();
            for (offset, length) in Ends::ranges(size) {
                bytes.extend(&whole[offset as usize..offset as usize + length]);
            }
            let mut ends = Ends::new(&disk, bytes);
            for offset in [0, 512, WINDOW - 4, size - WINDOW, size - 4] {
                let mut buffer = [0; 4];
                ends.read_at(offset, &mut buffer).unwrap();
                assert_eq!(buffer, whole[offset as usize..offset as usize + 4]);
            }
            assert!(ends.read_at(WINDOW - 2, &mut [0; 4]).is_err());
            assert!(ends.read_at(size - 2, &mut [0; 4]).is_err());
        }
        assert_eq!(Ends::ranges(1000), [(0, 1000), (0, 1000)]);
    }
}
