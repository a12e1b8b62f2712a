//! A small NBD server and client on unix sockets.
//!
//! Fixed newstyle handshake and simple replies of the protocol as NetworkBlockDevice/nbd's
//! `doc/proto.md` has it; one export under any name. Left out: TLS, structured replies, metadata
//! contexts, several connections at a time (a second one waits).

mod client;
mod server;
mod wire;

pub use client::Client;
pub use server::{Backend, Server};

#[cfg(test)]
mod tests;
