//! What happened, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a volume.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        /// What happened since the start, summed over the volumes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub(crate) fn add_to(&self, counts: &mut Counts) {
                $(counts.$name += self.$name.get();)*
            }
        }

        impl Counts {
            /// Names and values, for exporters.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Objects stored.
    stored,
    /// Bytes of their records and files.
    stored_bytes,
    /// Objects evicted.
    evicted,
    /// Bytes of their records and files.
    evicted_bytes,
    /// Segments evicted.
    evicted_segments,
    /// Objects that were written again when their segment went.
    survivors,
    /// Bytes of their records.
    survivor_bytes,
    /// Pinned objects that were evicted because pinned ones exceeded their share, or room was short.
    pins_broken,
    /// Held objects that were evicted because room was short.
    holds_broken,
    /// Objects found damaged, and dropped.
    damaged,
    /// Reads that the disk failed.
    read_errors,
    /// Writes that the disk failed.
    write_errors,
    /// fsyncs that failed.
    sync_errors,
    /// Objects withdrawn because an fsync failed after they were answered.
    withdrawn,
    /// Entries dropped because an object that they name is gone.
    cascaded,
    /// Entries dropped because nobody used them for long.
    expired,
    /// Bytes that the scrub read.
    scrubbed_bytes,
    /// Whole turns of the scrub.
    scrub_turns,
    /// Checkpoints written.
    checkpoints,
}

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
