//! Random delays, so that clients do not all come back at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A random delay below `most`. As random as the keys of the standard library's hasher: enough to
/// spread clients, not for secrets.
pub(crate) fn up_to(most: Duration) -> Duration {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed));
    most.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}
