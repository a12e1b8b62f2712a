//! Tests of the crate from outside: against a server double on loopback and against the tools whose
//! place it takes. No network.

mod archive;
mod download;
mod fuzz;
mod lock;
#[cfg(feature = "oracle")]
mod oracle;
mod resolve;
mod server;
mod signing;
mod sources;
mod update;
mod versions;
