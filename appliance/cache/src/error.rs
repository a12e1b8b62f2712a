//! Why the service does not start.

use std::path::PathBuf;

/// Why the service does not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sockets that systemd holds could not be taken over.
    #[error("cannot take the sockets over from systemd: {source}")]
    Sockets {
        /// Why.
        source: std::io::Error,
    },
    /// A socket of systemd has a name that means nothing here.
    #[error(
        "systemd hands over a socket named {name:?}; right names are https, http, metrics and control"
    )]
    SocketName {
        /// Its name.
        name: String,
    },
    /// A socket could not be made.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Its address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing to listen on.
    #[error("no socket for HTTPS: start the service by its systemd sockets, or with --listen")]
    NoListener,
    /// The settings of authorization make no sense.
    #[error("cache.toml, [auth]: {reason}")]
    Auth {
        /// Why.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
    /// A certificate could not be kept.
    #[error("cannot keep the certificate at {path}: {source}")]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// rustls refuses the settings: a bug.
    #[error("cannot set TLS up: {source}")]
    Tls {
        /// Why.
        source: rustls::Error,
    },
}
