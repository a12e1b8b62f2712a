//! What the shipper counts about itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is set.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by reason or class, from a fixed set of words.
#[derive(Debug, Default)]
pub struct ByReason(Mutex<BTreeMap<&'static str, u64>>);

impl ByReason {
    /// Adds to the counter of a reason.
    pub fn add(&self, reason: &'static str, count: u64) {
        if count > 0 {
            *self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(reason)
                .or_default() += count;
        }
    }

    /// All reasons and their counts.
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .map(|(&reason, &count)| (reason, count))
            .collect()
    }

    /// Sum over all reasons.
    pub fn total(&self) -> u64 {
        self.all().iter().map(|(_, count)| count).sum()
    }
}

/// What one pipeline of logs counts.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// Entries read from the journal, those read again after a refusal included.
    pub read: Counter,
    /// Entries acknowledged by the receiver.
    pub shipped: Counter,
    /// Bytes sent in acknowledged requests, compressed.
    pub bytes: Counter,
    /// Entries lost, by reason.
    pub dropped: ByReason,
    /// Entries that vacuuming took before they were shipped.
    pub lost_to_vacuum: Counter,
    /// Requests by outcome.
    pub requests: ByReason,
    /// Secrets blotted out.
    pub redactions: Counter,
    /// Entries that were given another time than journald's.
    pub restamped: Counter,
    /// Errors while reading the journal.
    pub read_errors: Counter,
    /// Time of the oldest entry that is known and not acknowledged, in µs since 1970; 0: none.
    pub oldest: Gauge,
    /// The last problem in words; empty: all is well.
    pub problem: Mutex<String>,
}

impl LogCounters {
    /// Sets what is wrong; empty: nothing.
    pub fn set_problem(&self, problem: &str) {
        let mut current = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != problem {
            problem.clone_into(&mut current);
        }
    }

    /// What is wrong.
    pub fn problem(&self) -> String {
        self.problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the pipeline of metrics counts.
#[derive(Debug, Default)]
pub struct MetricCounters {
    /// Samples that the receiver took.
    pub samples: Counter,
    /// Samples that are lost, by reason.
    pub dropped: ByReason,
    /// Requests by outcome.
    pub requests: ByReason,
    /// Bytes sent in acknowledged requests, compressed.
    pub bytes: Counter,
    /// Series put aside because the receiver cannot take them.
    pub quarantined: Counter,
    /// Frames on disk, waiting for the receiver.
    pub waiting_frames: Gauge,
    /// Bytes on disk.
    pub waiting_bytes: Gauge,
    /// Time of the oldest frame that waits, in ms since 1970; 0: none.
    pub oldest: Gauge,
    /// The last problem in words; empty: all is well.
    pub problem: Mutex<String>,
}
