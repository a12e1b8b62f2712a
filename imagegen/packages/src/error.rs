//! Everything that can go wrong between apt's sources and verified files, one sentence each.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither apt's configuration nor `--mirror` names a Debian archive.
    #[error(
        "no Debian archive found in {searched}: give one with --mirror URL (the folder that holds `dists` and `pool`){}",
        if .ignored.is_empty() { String::new() } else { format!("; looked at and left out: {}", .ignored.join("; ")) }
    )]
    NoSources {
        /// Where was looked.
        searched: String,
        /// Sources that were seen but are no Debian archives, with the reason.
        ignored: Vec<String>,
    },
    /// A mirror's URL cannot be used.
    #[error("mirror `{url}`: {reason}")]
    BadUrl {
        /// As given, without credentials.
        url: String,
        /// Why.
        reason: String,
    },
    /// A file could not be read, written or renamed.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk under the cache is full.
    #[error(
        "{path}: the disk is full: {needed} more bytes are needed, {available} are free; make room or set LARDER_CACHE to a folder on another disk"
    )]
    DiskFull {
        /// File or folder.
        path: PathBuf,
        /// Bytes that the downloads still need.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// Text that does not follow its format.
    #[error("{what}, line {line}: {reason}")]
    Syntax {
        /// File name or URL.
        what: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The lock file does not say what it must.
    #[error("{path}: {reason}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// With line and column where the format itself is broken.
        reason: String,
    },
    /// The keyring that signatures are checked with is missing.
    #[error(
        "no keyring at {}: install the package debian-archive-keyring, or copy its file there from a Debian machine",
        .tried.join(" or ")
    )]
    NoKeyring {
        /// Paths that were tried.
        tried: Vec<String>,
    },
    /// No program on this host can check OpenPGP signatures.
    #[error("neither gpgv nor sqv can be run here: install the package gpgv (or sqv)")]
    NoVerifier,
    /// The signature of an InRelease file is not good.
    #[error("{url}: the signature is not good ({reason}); keyring {keyring}")]
    Signature {
        /// The file.
        url: String,
        /// What the verifier said.
        reason: String,
        /// Keyring used.
        keyring: PathBuf,
    },
    /// The signed file is about another suite.
    #[error("{url}: this is suite `{suite}`, codename `{codename}`, but `{wanted}` was asked for")]
    WrongSuite {
        /// The file.
        url: String,
        /// Its suite.
        suite: String,
        /// Its codename.
        codename: String,
        /// What was asked for.
        wanted: String,
    },
    /// The signed file is past its Valid-Until, and that was to be an error.
    #[error("{url}: expired {days} days ago ({valid_until}): the mirror is stale")]
    Expired {
        /// The file.
        url: String,
        /// Age past the date.
        days: u64,
        /// The date.
        valid_until: String,
    },
    /// The mirror serves an older index than the lock was made from.
    #[error(
        "{url}: dated {date}, older than the one of the present lock ({locked}): a stale or rolled-back mirror; use another, or delete the lock to accept it"
    )]
    Downgrade {
        /// The file.
        url: String,
        /// Its date.
        date: String,
        /// The lock's date for the suite.
        locked: String,
    },
    /// The signed file does not list an index that is needed.
    #[error("{url}: no SHA256 entry for `{file}` (is the architecture right?)")]
    NotListed {
        /// InRelease.
        url: String,
        /// Relative path of the index.
        file: String,
    },
    /// No source could be reached.
    #[error("{url}: {reason} (tried {attempts} times)")]
    Unreachable {
        /// Last URL.
        url: String,
        /// Last reason.
        reason: String,
        /// Number of attempts.
        attempts: u32,
    },
    /// A server answered with a status that retrying does not help.
    #[error("{url}: the server answered {status}")]
    Status {
        /// URL.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// A file is larger than it may be.
    #[error("{url}: more than {limit} bytes: refused")]
    TooLarge {
        /// URL.
        url: String,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// Packages that no configured source holds any more.
    #[error(
        "gone from every configured source: {}; `imagegen lock` resolves anew",
        .packages.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    )]
    Gone {
        /// Names and versions, sorted.
        packages: Vec<(String, String)>,
    },
    /// A file is not what it must be.
    #[error("{url}: SHA-256 is {found}, must be {wanted}: tampered with, or the mirror is broken")]
    Mismatch {
        /// URL.
        url: String,
        /// What came.
        found: Digest,
        /// What the lock or the signed index says.
        wanted: Digest,
    },
    /// A file has not the size it must have.
    #[error("{url}: {found} bytes, must be {wanted}: tampered with, or the mirror is broken")]
    WrongSize {
        /// URL.
        url: String,
        /// Bytes that came.
        found: u64,
        /// Bytes that the lock or the signed index says.
        wanted: u64,
    },
    /// The wish cannot be fulfilled.
    #[error("{0}")]
    Request(String),
    /// Dependencies that do not fit, each a sentence with the chain of who asked.
    #[error("the packages do not fit together:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
    Unresolved(Vec<String>),
    /// The runtime or TLS could not be set up.
    #[error("{what}: {reason}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io {
            path,
            action,
            source,
        }
    }
}
