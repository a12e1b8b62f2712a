//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use crate::key::KEY_LIMIT;

/// Why an operation failed, each variant a sentence that names the place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More bytes than allowed, declared or received.
    #[error("the object is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The stream ended early or went on too long.
    #[error("{declared} bytes were declared and {received} came")]
    Length {
        /// Declared length in bytes.
        declared: u64,
        /// Received length in bytes; when it is above `declared`, more may have been on the way.
        received: u64,
    },
    /// The bytes have another SHA-256 than declared.
    #[error("SHA-256 {} was declared and {} came", hex(declared), hex(received))]
    Digest {
        /// Declared SHA-256.
        declared: [u8; 32],
        /// SHA-256 of what came.
        received: [u8; 32],
    },
    /// The key is too long.
    #[error("the key holds {length} bytes; at most {KEY_LIMIT} are possible")]
    Key {
        /// Its length in bytes.
        length: usize,
    },
    /// Something beside the body is too long.
    #[error("{what} is too long: {length}; the most is {limit}")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// An entry names an object of another project, whose cleans it would not follow.
    #[error("an entry may only name objects of its own project")]
    ForeignName,
    /// The project was cleaned after the upload began.
    #[error("the project was cleaned during the upload")]
    Cleaned,
    /// The disk is full (ENOSPC or EDQUOT).
    #[error("{path}: no space left")]
    Full {
        /// Where it was noticed.
        path: PathBuf,
    },
    /// The file system is read-only, which it also becomes after errors.
    #[error("{path}: read-only file system")]
    ReadOnly {
        /// Where it was noticed.
        path: PathBuf,
    },
    /// Any other failure of the disk or the file system.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Bytes of an object are not those that were stored: found while it was being read.
    #[error("{path}: the object is damaged at byte {offset}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Offset of the damaged block in the object.
        offset: u64,
    },
    /// Another process has the store open.
    #[error("{path}: another process holds the store")]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The store cannot be used; [`crate::Store::status`] says why too.
    #[error("the store cannot be used: {reason}")]
    Unusable {
        /// Why.
        reason: String,
    },
    /// The program is stopping, or a thread of the store died.
    #[error("the operation was interrupted")]
    Interrupted,
}

impl Error {
    /// Turns an error of the system into a typed one.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path: path.into() }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path: path.into() },
            _ => Self::Io {
                path: path.into(),
                action,
                source,
            },
        }
    }

    /// The same again, for everybody who waited for one write; the source becomes its text.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Full { path } => Self::Full { path: path.clone() },
            Self::ReadOnly { path } => Self::ReadOnly { path: path.clone() },
            Self::Io {
                path,
                action,
                source,
            } => Self::Io {
                path: path.clone(),
                action,
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::Cleaned => Self::Cleaned,
            Self::Interrupted => Self::Interrupted,
            other => Self::Unusable {
                reason: other.to_string(),
            },
        }
    }

    /// Whether the disk is to blame, not what was sent.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        !matches!(
            self,
            Self::TooLarge { .. }
                | Self::Length { .. }
                | Self::Digest { .. }
                | Self::Key { .. }
                | Self::TooLong { .. }
                | Self::ForeignName
                | Self::Cleaned
                | Self::Interrupted
        )
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
