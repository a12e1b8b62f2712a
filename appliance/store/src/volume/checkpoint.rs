//! Writing checkpoints: recency, and a fast start.

use std::io;

use super::recover::CHECKPOINTS;
use super::{Volume, lock};
use crate::Error;
use crate::disk::Flush;
use crate::format::ALIGN;
use crate::format::checkpoint::{Header, Item, Writer};
use crate::index::{Place, SHARDS};

impl Volume {
    /// Writes a checkpoint in the place of the older one.
    ///
    /// # Errors
    ///
    /// The disk failed. The other checkpoint is as it was.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        // Without eviction, so that a record that is being written again is in it at one place.
        let mut keeping = lock(&self.keeping);
        if self.is_recovering() {
            return Ok(());
        }
        self.sync(Flush::Records)?;
        let tail = self.durable_tail();
        let path = CHECKPOINTS[usize::from(keeping.serial.is_multiple_of(2))];
        let header = Header {
            serial: keeping.serial + 1,
            uuid: self.label.uuid,
            tail,
            ..Header::default()
        };
        let written = self.write_checkpoint(path, header);
        self.note(written.map_err(Error::io(&self.path(path), "write")))?;
        keeping.serial += 1;
        self.counters.checkpoints.add(1);
        Ok(())
    }

    /// All records before it are durable.
    fn durable_tail(&self) -> Place {
        let log = lock(&self.log);
        let first = log.closing.first().or(log.open.as_ref());
        match first {
            Some(open) => Place {
                segment: open.segment.header.id,
                offset: (open.synced / ALIGN) as u32,
            },
            // The newest segment is closed, all of it is durable.
            None => Place {
                segment: self.all_segments().last().map_or(0, |last| last.header.id),
                offset: u32::MAX,
            },
        }
    }

    fn write_checkpoint(&self, path: &str, header: Header) -> io::Result<()> {
        let new = format!("{path}.new");
        match self.disk.unlink(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&new)?;
        let mut writer = Writer::new(&*file, header);
        for segment in self.all_segments() {
            let known = segment.header;
            if known.id <= header.tail.segment {
                writer.push(Item::Segment(known.id, known.generation))?;
            }
        }
        let epochs: Vec<Item> = lock(&self.epochs).items().collect();
        for epoch in epochs {
            writer.push(epoch)?;
        }
        let larges: Vec<Item> = lock(&self.larges)
            .iter()
            .filter(|(place, _)| **place < header.tail)
            .map(|(place, large)| Item::Large(*place, large.file, large.bytes))
            .collect();
        for large in larges {
            writer.push(large)?;
        }
        let mut slots = Vec::new();
        for shard in 0..SHARDS {
            slots.clear();
            self.index.for_each(shard, |slot| {
                if slot.place < header.tail {
                    slots.push(*slot);
                }
            });
            for slot in &slots {
                writer.push(Item::Slot(*slot))?;
            }
        }
        writer.finish()?;
        file.sync(Flush::Checkpoint)?;
        self.disk.rename(&new, path)?;
        self.disk.sync_folder("", Flush::Checkpoint)
    }
}
