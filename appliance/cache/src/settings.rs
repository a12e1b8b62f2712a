//! What the service is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use crate::{AccessLogSettings, AcmeSettings, AuthSettings, Credentials, Network};

/// Everything that the service is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the artifacts.
    pub storage: PathBuf,
    /// When an upload is answered.
    pub durability: store::Durability,
    /// Folder where the certificate is kept; `None`: only in memory.
    pub state: Option<PathBuf>,
    /// Who may.
    pub auth: AuthSettings,
    /// Where records of requests go; `None`: nowhere.
    pub access_log: Option<AccessLogSettings>,
    /// How certificates are got; `None`: a self-signed one serves, unless there is a static one.
    pub acme: Option<AcmeSettings>,
    /// Where the credentials `jwt-secret`, `jwt-keys`, `tls-cert` and `tls-key` are.
    pub credentials: Credentials,
    /// Largest Xcode CAS object in bytes.
    pub max_cas_bytes: u64,
    /// Private networks whose clients may come without TLS, Tuist's excepted.
    pub plain_networks: Vec<Network>,
    /// Whether Turborepo's artifacts must be signed.
    pub signed_only: bool,
    /// Longest wait for running transfers at a stop.
    pub drain: Duration,
    /// Names in the certificate, the first one first; never empty.
    pub names: Vec<String>,
    /// Version that `/up` says.
    pub version: String,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// How much clients may take.
    pub transport: TransportSettings,
}

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
pub struct TransportSettings {
    /// Streams of one HTTP/2 connection at a time.
    pub streams: u32,
    /// Requests over one connection, which then ends well.
    pub requests: u64,
    /// Bytes of bodies that are in memory on their way to clients.
    pub budget: u64,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            streams: 512,
            requests: 10_000,
            budget: 256 << 20,
        }
    }
}

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From the connection or the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// Between two pieces of a response that the client takes.
    pub stall: Duration,
    /// For the first 256 KiB of a request body: at least, and at most for large ones.
    pub body_first: (Duration, Duration),
    /// For each further 256 KiB of a request body: at least, and at most for large ones.
    pub body_next: (Duration, Duration),
}

impl Default for Timeouts {
    /// Those of the service that this one replaces, where it had any.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            head: seconds(30),
            idle: seconds(120),
            stall: seconds(300),
            body_first: (seconds(60), seconds(600)),
            body_next: (seconds(15), seconds(60)),
        }
    }
}
