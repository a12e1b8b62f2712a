//! Secrets of a machine: references to them, and how their values get to the units that need them.

mod budget;
pub mod clock;
mod error;
pub mod manifest;
pub mod reference;
mod secret;
pub mod transport;

pub use budget::{Budget, Budgeted};
pub use error::{Class, FetchError};
pub use secret::{LARGEST, MemoryError, Secret, protect_process};

/// Where `LoadCredential=` of units points.
pub const CREDENTIAL_SOCKET: &str = "/run/larder/secrets.sock";
