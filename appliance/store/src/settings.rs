//! How a store is to be.

use std::path::PathBuf;
use std::time::Duration;

/// When a put is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After `write()`; durable within a second. A power cut within it may take the object, whole.
    #[default]
    Lazy,
    /// After fdatasync.
    Ack,
}

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folders of the volumes, each on a disk of its own. Their order does not matter, their names do.
    pub volumes: Vec<PathBuf>,
    /// What the volumes are called, one name for each; empty: as their folders. Keys are spread by
    /// name, so a disk that is mounted elsewhere keeps what it holds only under its old name.
    pub names: Vec<String>,
    /// When a put is answered.
    pub durability: Durability,
    /// Most bytes of each volume, beside what its free-space reserve allows.
    pub capacity: Option<u64>,
    /// Length of a segment in bytes; by default a 64th of the volume, 4 to 256 MiB.
    pub segment_bytes: Option<u64>,
    /// Objects from this length on have files of their own.
    pub large_from: u64,
    /// Bytes of small objects that are kept in memory because they are read often; 0, the default: none.
    pub hot_bytes: u64,
    /// Percent of the capacity that pinned objects may hold.
    pub pinned_percent: u8,
    /// Entries that were not used for so long are misses and go.
    pub entry_retention: Duration,
    /// Objects that are older go, unless they are in use; by default only room counts.
    pub max_age: Option<Duration>,
    /// Bytes a second that the scrub reads; 0: no scrub.
    pub scrub_bytes_per_second: u64,
    /// Between two checkpoints; recency that is younger is lost with the power.
    pub checkpoint_every: Duration,
}

impl Settings {
    /// The defaults, for these volumes.
    #[must_use]
    pub fn new(volumes: Vec<PathBuf>) -> Self {
        Self {
            volumes,
            names: Vec::new(),
            durability: Durability::Lazy,
            capacity: None,
            segment_bytes: None,
            large_from: 1 << 20,
            hot_bytes: 0,
            pinned_percent: 25,
            entry_retention: Duration::from_secs(30 * 24 * 60 * 60),
            max_age: None,
            scrub_bytes_per_second: 16 << 20,
            checkpoint_every: Duration::from_secs(240),
        }
    }
}

/// How much of a volume stays free: 2 % or 4 GiB, whichever is more, but at most a tenth.
pub(crate) fn reserve(total: u64) -> u64 {
    (total / 50).max(4 << 30).min(total / 10)
}

/// Default length of a segment on a volume of `total` bytes.
pub(crate) fn segment_bytes(total: u64) -> u64 {
    (total / 64).clamp(4 << 20, 256 << 20) & !0xffff
}
