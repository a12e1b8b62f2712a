//! The HTTPS cache service: artifacts of builds, put once and got often.
//!
//! One [`Server`] answers on three kinds of [`Listeners`]: HTTPS for the service, HTTP for `/up` and
//! a redirect, and loopback for `/metrics`. What it answers is what the cache service that it
//! replaces answered, statuses and texts included, so that clients notice nothing.
//!
//! From the outside in: `server` accepts and stops, `transport` speaks TLS and HTTP and ends what
//! hangs, `auth` says who may, `router` finds the handler: `api` has those of Tuist, `adapters` those of
//! other clients, `transfer` what they share.

mod access_log;
mod accounts;
mod adapters;
mod answer;
mod api;
#[allow(
    dead_code,
    unused_imports,
    reason = "the adapters that use the rest come next"
)]
mod auth;
mod body;
mod call;
pub mod certificate;
pub mod control;
mod credentials;
mod error;
mod jitter;
mod metrics;
mod network;
mod notify;
mod pace;
mod plain;
mod process;
mod range;
mod references;
mod reload;
mod router;
mod server;
mod settings;
mod stored;
mod target;
mod traffic;
mod transfer;
mod transport;

pub use access_log::AccessLogSettings;
pub use auth::{AuthSettings, ConfiguredToken, ServerSettings, SharedAlgorithm, TokenHash, revoke};
pub use certificate::AcmeSettings;
pub use credentials::Credentials;
pub use error::Error;
pub use network::Network;
pub use server::Server;
pub use settings::{Settings, Timeouts, TransportSettings};
pub use transport::listeners::Listeners;

/// Fuzz target: no bytes may panic a parser of this crate.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = range::parse(&text, bytes.len() as u64);
    let _ = target::decode(&text);
    let _ = target::Query::parse(Some(&text));
    let _ = target::segments(&text);
    let _ = transfer::json::parse(bytes);
    let _ = references::action::parse(bytes);
    let _ = references::action::tree(bytes);
    references::xcode::ids(&text, &mut Vec::new());
    let _ = text.parse::<Network>();
    auth::fuzz(bytes);
    transport::framing::fuzz(bytes);
    let _ = certificate::parse(bytes);
}
