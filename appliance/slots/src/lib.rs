//! Boot slots: counting boots, health, blessing, and what stage1 tells the rest of the system.
//!
//! Two counters work together. systemd-boot counts the tries of an image that was never healthy, in
//! the name of its file on the ESP (`larder_1.2+2-1.efi`: two tries left, one done), and prefers
//! another image when none is left; [`bless`] takes the counter out of the name. stage1 counts the
//! boots since the last healthy one on the state file system ([`Attempts`]), which also sees an
//! image go bad that was healthy once; after three it asks for the other image, once.

mod attempts;
mod bless;
pub mod efivar;
mod entry;
mod report;

pub use attempts::{Advice, Attempts, LIMIT, advise};
pub use bless::{Blessing, bless};
pub use entry::{Entry, list};
pub use report::{BootReport, PATH as REPORT_PATH, StateStatus};

/// What can go wrong, each variant a sentence that names the place and says its cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be used.
    #[error("{path}: cannot {action}: {cause}")]
    Path {
        /// What was used.
        path: std::path::PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// A file has a content that makes no sense.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be replaced.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

impl Error {
    fn path(
        path: impl Into<std::path::PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Path {
            path,
            action,
            cause,
        }
    }
}

/// Fuzz target: no bytes may panic a parser of this crate.
pub fn fuzz(bytes: &[u8]) {
    attempts::fuzz(bytes);
    efivar::fuzz(bytes);
    let name = String::from_utf8_lossy(bytes);
    if let Some(entry) = Entry::parse(&name) {
        let _ = (entry.id(), entry.product());
    }
    let _ = bless(std::path::Path::new("/nonexistent"), &name);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            super::fuzz(&bytes);
        }

        #[test]
        fn names_never_panic(text in "[a-z_]{0,4}[+]?[0-9]{0,12}[-]?[0-9]{0,12}([.]efi)?") {
            super::fuzz(text.as_bytes());
        }
    }
}
