//! How full the store is.

use super::Store;
use crate::counters::Counts;

/// How full the store is, summed over its volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Objects in the index.
    pub objects: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// Bytes of segments and files.
    pub used: u64,
    /// Most bytes of them.
    pub capacity: u64,
    /// Bytes that are kept free on the disks.
    pub reserve: u64,
    /// When the oldest segment was made, ms since 1970, 0 if there is none: what is older and unused is gone.
    pub oldest: u64,
    /// Bytes of pinned objects.
    pub pinned: u64,
    /// Bytes that are unlinked, but still read.
    pub pending: u64,
    /// Segments.
    pub segments: u64,
    /// Volumes that work.
    pub volumes: u64,
    /// What happened since the start.
    pub counts: Counts,
}

impl Store {
    /// How full the store is and what happened.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for volume in self
            .inner
            .shelves
            .iter()
            .filter_map(|shelf| shelf.volume().ok())
        {
            usage.objects += volume.index.len() as u64;
            usage.index_bytes += volume.index.bytes() as u64;
            usage.used += volume.used();
            usage.capacity += volume.capacity();
            usage.reserve += volume.reserve();
            usage.pinned += volume.pinned_bytes();
            usage.pending += volume.pending_bytes();
            let segments = volume.all_segments();
            usage.segments += segments.len() as u64;
            let oldest = segments.first().map(|segment| segment.header.time);
            usage.oldest = match (usage.oldest, oldest.unwrap_or(0)) {
                (0, other) | (other, 0) => other,
                (one, other) => one.min(other),
            };
            usage.volumes += 1;
            volume.counters.add_to(&mut usage.counts);
        }
        usage
    }
}
