//! `configs/cache.toml`: the cache service.

use serde::{Deserialize, Serialize};

/// The file `cache.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Folder of the artifacts.
    pub storage: String,
    /// SHA-256 (64 hex digits) of the one bearer token; the credential `larder.cache-token` wins.
    #[serde(default)]
    pub token_sha256: Option<String>,
    /// Largest Xcode CAS object in bytes.
    pub max_cas_bytes: u64,
    /// Longest drain of running transfers at a stop, in seconds.
    pub drain_seconds: u64,
}
