//! Logs: from the journal to Loki.
//!
//! The journal is the write-ahead log. A [`Pipeline`] reads entries oldest first, sends them in
//! batches, and moves its cursor only when the receiver has acknowledged a batch; so whatever
//! happens to receiver, network or shipper, every entry arrives at least once, or is counted:
//! - as lost to vacuum, when journald removed it first (gaps in the sequence numbers);
//! - as dropped, by reason, when the receiver refuses it for ever.
//!
//! A batch that is sent again is the same bytes, and labels, time, text and metadata of a line are
//! the same after a restart, so that Loki, which stores equal lines once, stores it once.

mod answer;
mod batch;
mod lines;
mod pipeline;
mod reader;
mod state;

pub use lines::Labels;
pub use pipeline::{Pipeline, Settings, Step};

pub use state::{Ahead, Keep, KeepFile, Memory};
