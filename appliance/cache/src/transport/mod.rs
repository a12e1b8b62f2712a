//! From the socket to a request: listeners, TLS, HTTP, and the end of what hangs.

pub(crate) mod activity;
pub(crate) mod ahead;
pub(crate) mod budget;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod gather;
pub(crate) mod listeners;
