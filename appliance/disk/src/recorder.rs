//! A disk that remembers every write and flush, to cut the power at each of them.

use crate::{Error, ReadAt, Storage};

enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

/// A disk in memory with a record of what was written since it was made.
pub(crate) struct Recorder {
    before: Vec<u8>,
    now: Vec<u8>,
    events: Vec<Event>,
    sector_size: u32,
}

impl Recorder {
    pub(crate) fn new(content: Vec<u8>, sector_size: u32) -> Self {
        Self {
            before: content.clone(),
            now: content,
            events: Vec::new(),
            sector_size,
        }
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.now
    }

    /// A new recorder that starts where this one ended.
    pub(crate) fn reboot(content: Vec<u8>, sector_size: u32) -> Self {
        Self::new(content, sector_size)
    }

    pub(crate) fn writes(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Write(..)))
            .count()
    }

    /// Calls `check` with the disk as the next boot may find it: for a cut after each event, what
    /// was flushed, with none, all, only the last, or all but the first of the writes since, and
    /// with the last one torn in half.
    pub(crate) fn each_cut(&self, mut check: impl FnMut(&str, &[u8])) {
        let mut durable = self.before.clone();
        let mut pending: Vec<(u64, &[u8])> = Vec::new();
        check("before anything", &durable);
        for (index, event) in self.events.iter().enumerate() {
            match event {
                Event::Write(offset, data) => pending.push((*offset, data)),
                Event::Flush => {
                    for (offset, data) in pending.drain(..) {
                        apply(&mut durable, offset, data);
                    }
                }
            }
            let mut try_with = |name: &str, writes: &[(u64, &[u8])]| {
                let old: Vec<_> = writes
                    .iter()
                    .map(|(offset, data)| {
                        let range = *offset as usize..*offset as usize + data.len();
                        (*offset, durable[range].to_vec())
                    })
                    .collect();
                for (offset, data) in writes {
                    apply(&mut durable, *offset, data);
                }
                check(&format!("event {index}, {name}"), &durable);
                for (offset, data) in old.iter().rev() {
                    apply(&mut durable, *offset, data);
                }
            };
            try_with("nothing since the flush", &[]);
            if let Some((last, others)) = pending.split_last() {
                try_with("all", &pending);
                if !others.is_empty() {
                    try_with("only the last", &[*last]);
                    try_with("all but the first", &pending[1..]);
                }
                let half = last.1.len() / 2 / self.sector_size as usize * self.sector_size as usize;
                if half > 0 {
                    let torn = [others, &[(last.0, &last.1[..half])]].concat();
                    try_with("the last one torn", &torn);
                    try_with(
                        "the end of the last",
                        &[(last.0 + half as u64, &last.1[half..])],
                    );
                }
            }
        }
    }
}

fn apply(disk: &mut [u8], offset: u64, data: &[u8]) {
    disk[offset as usize..offset as usize + data.len()].copy_from_slice(data);
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        self.now.len() as u64
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.now[start..start + buffer.len()]);
        Ok(())
    }
}

impl Storage for Recorder {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let sector = self.sector_size as usize;
        assert!(
            (offset as usize).is_multiple_of(sector) && data.len().is_multiple_of(sector),
            "whole sectors only"
        );
        apply(&mut self.now, offset, data);
        self.events.push(Event::Write(offset, data.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.events.push(Event::Flush);
        Ok(())
    }
}

/// Bytes that look like anything, the same at every run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
