//! Strict doubles of the receivers that the shipper speaks to, for tests on the loopback interface.
//!
//! [`Loki`] answers as Loki was observed to answer (facts/logs-and-metrics.md 1.2), [`remote_write`]
//! reads Prometheus's requests, and [`Server`] puts either behind HTTP, together with whatever a
//! broken network or a confused middle box might do. Nothing here uses the shipper's own code.

mod loki;
mod protobuf;
pub mod remote_write;
mod server;

pub use loki::{Limits, Line, Loki};
pub use server::{Reply, Request, Server};
