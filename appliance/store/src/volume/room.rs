//! How much room there is, and the reserve that stays free.

use std::sync::atomic::Ordering;

use super::{Volume, lock};
use crate::Error;
use crate::disk::Room;
use crate::settings;

impl Volume {
    /// Bytes of segments and files on the disk, as accounted.
    pub(crate) fn used(&self) -> u64 {
        let segments: u64 = self
            .all_segments()
            .iter()
            .map(|segment| segment.bytes.load(Ordering::Relaxed))
            .sum();
        segments + self.large_bytes.load(Ordering::Relaxed)
    }

    /// Asks the disk anew.
    pub(super) fn look(&self) -> Result<Room, Error> {
        let room = self.disk.room();
        let room = room.map_err(Error::io(self.disk.root(), "ask for room on"))?;
        *lock(&self.room) = room;
        let ours = self.used() + self.pending.load(Ordering::Relaxed) + room.free;
        let usable = ours.saturating_sub(settings::reserve(room.total));
        let limit = self.settings.capacity.unwrap_or(u64::MAX);
        self.capacity
            .store(limit.min(usable).max(1), Ordering::Relaxed);
        Ok(room)
    }

    /// Most bytes that the volume may use, as of the last look at the disk.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// How much stays free.
    pub(crate) fn reserve(&self) -> u64 {
        settings::reserve(lock(&self.room).total)
    }

    /// How much a segment may weigh, files of their own included.
    pub(super) fn grain(&self) -> u64 {
        self.segment_bytes.max(self.capacity() / 64)
    }

    /// How many bytes are missing for `bytes` more; and whether it is an emergency: the reserve is
    /// half gone, nothing may be copied.
    fn shortage(&self, bytes: u64) -> Result<(u64, bool), Error> {
        let room = self.look()?;
        // Bytes of segments that are still read come back by themselves.
        let free = room.free + self.pending.load(Ordering::Relaxed);
        let reserve = settings::reserve(room.total);
        let by_disk = (bytes + reserve).saturating_sub(free);
        let mut shortage = by_disk;
        if let Some(capacity) = self.settings.capacity {
            shortage = shortage.max((self.used() + bytes).saturating_sub(capacity));
        }
        Ok((shortage, by_disk > reserve / 2))
    }

    /// Evicts until there is room for `bytes` more above the reserve, and for the copies that the
    /// next eviction makes.
    ///
    /// # Errors
    ///
    /// There is nothing left to evict, or the disk failed.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let mut keeping = lock(&self.keeping);
        // Copies go to the open segment and at most one more.
        let wanted = bytes + self.segment_bytes;
        // After a whole turn in which all was kept, nothing is kept any more.
        let mut turn = self.all_segments().len();
        loop {
            let (shortage, emergency) = self.shortage(wanted)?;
            if shortage == 0 {
                return Ok(());
            }
            let emergency = emergency || turn == 0;
            turn = turn.saturating_sub(1);
            if self.evict_oldest(&mut keeping, emergency)? {
                continue;
            }
            // Nothing is left; without room for copies it may still do.
            let (shortage, _) = self.shortage(bytes)?;
            let reserve = self.reserve();
            if shortage == 0 || (self.settings.capacity.is_none() && shortage <= reserve / 2) {
                return Ok(());
            }
            let path = self.disk.root().into();
            return self.note(Err(Error::Full { path }));
        }
    }
}
