//! The HTTPS cache service: artifacts of builds, put once and got often.
//!
//! One [`Server`] answers on three kinds of [`Listeners`]: HTTPS for the service, HTTP for `/up` and
//! a redirect, and loopback for `/metrics`. What it answers is what the cache service that it
//! replaces answered, statuses and texts included, so that clients notice nothing.
//!
//! From the outside in: `server` accepts and stops, `transport` speaks TLS and HTTP and ends what
//! hangs, `auth` says who may, `router` finds the handler, `cas` is the handler of the Xcode CAS.

mod answer;
#[allow(
    dead_code,
    unused_imports,
    reason = "the adapters that use the rest come next"
)]
mod auth;
mod body;
mod cas;
pub mod certificate;
mod credentials;
mod error;
mod jitter;
mod metrics;
mod notify;
mod pace;
mod plain;
mod process;
mod range;
mod router;
mod server;
mod settings;
mod target;
mod transport;

pub use auth::{AuthSettings, ConfiguredToken, ServerSettings, SharedAlgorithm, TokenHash, revoke};
pub use credentials::Credentials;
pub use error::Error;
pub use server::Server;
pub use settings::{Settings, Timeouts, TransportSettings};
pub use transport::listeners::Listeners;

/// Fuzz target: no bytes may panic a parser of this crate.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = range::parse(&text, bytes.len() as u64);
    let _ = target::decode(&text);
    let _ = target::query(Some(&text), "account_handle");
    auth::fuzz(bytes);
    transport::framing::fuzz(bytes);
    let _ = certificate::parse(bytes);
}
