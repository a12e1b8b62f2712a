//! Secrets of a machine: references to them, and how their values get to the units that need them.

mod backoff;
mod budget;
pub mod clock;
pub mod credentials;
mod error;
pub mod fetcher;
pub mod files;
pub mod fingerprint;
mod lastgood;
pub mod manifest;
pub mod provider;
pub mod redact;
pub mod reference;
pub mod refresh;
pub mod seal;
mod secret;
pub mod socket;
pub mod transport;

pub use budget::{Budget, Budgeted};
pub use error::{Class, FetchError};
pub use lastgood::{Kept, LastGood};
pub use secret::{LARGEST, MemoryError, Secret, protect_process};

/// Where `LoadCredential=` of units points.
pub const CREDENTIAL_SOCKET: &str = "/run/larder/secrets.sock";

/// Fuzz target: no bytes may panic what reads bytes from outside.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<reference::Reference>();
    let _ = manifest::Manifest::parse(&text, "manifest.toml".as_ref());
    let _ = transport::Origin::parse(&text);
    let _ = lastgood::parse(bytes);
    let _ = refresh::Question::parse(&text);
    let _ = serde_json::from_slice::<refresh::Fingerprints>(bytes);
    budget::fuzz(bytes);
    socket::fuzz(bytes);
    provider::fuzz(bytes);
}
