//! What can go wrong, each variant a sentence that names the place.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of this crate. Each says its cause itself, so none has a source that a chain would
/// repeat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, folder or device could not be used.
    #[error("{path}: cannot {action}: {cause}")]
    Path {
        /// What was used.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
    /// Reading, writing or flushing failed somewhere on a device.
    #[error("cannot {action} {length} bytes at byte {offset}: {cause}")]
    Transfer {
        /// `read`, `write` or `flush`.
        action: &'static str,
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// Why it failed.
        cause: io::Error,
    },
    /// There is no usable partition table.
    #[error("no usable partition table: {primary}; {backup}")]
    NoTable {
        /// What is wrong with the first copy.
        primary: String,
        /// What is wrong with the copy at the end.
        backup: String,
    },
    /// The partition table does not allow what was asked.
    #[error("partition table: {0}")]
    Table(String),
    /// A program of the image could not be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        cause: io::Error,
    },
    /// A program did not end in time.
    #[error("{program} did not end within {} s and was stopped", deadline.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// The time it had.
        deadline: Duration,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// The program.
        program: String,
        /// Exit code or signal, in words.
        status: String,
        /// The last lines that it wrote.
        output: String,
    },
    /// A freshly made file system is not as it has to be.
    #[error("the new file system is not as expected: {0}")]
    Made(String),
    /// A mount failed.
    #[error("cannot mount {device} on {target} ({options}): {cause}")]
    Mount {
        /// What.
        device: String,
        /// Where.
        target: PathBuf,
        /// How.
        options: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// `/cas/.larder` is not what this version knows.
    #[error("{path}: {reason}")]
    Marker {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A disk may not be used for `/cas`.
    #[error("{0}")]
    Refused(String),
    /// There are no random numbers.
    #[error("no random numbers from the kernel: {cause}")]
    Random {
        /// Why.
        cause: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error about a path.
    pub(crate) fn path(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Path {
            path,
            action,
            cause,
        }
    }
}
