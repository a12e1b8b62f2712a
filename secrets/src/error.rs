//! Why a secret could not be fetched.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// What kind of failure it is, which decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The provider has nothing by that name.
    Missing,
    /// The reference cannot mean anything there, such as a one-time code of a plain field.
    Invalid,
    /// More than one thing has that name.
    Ambiguous,
    /// The token is good, but not for this.
    Denied,
    /// The provider refuses the token, or there is none, or it makes no sense.
    Unauthorized,
    /// The provider counts requests, and these were too many.
    RateLimited,
    /// Our own budget of requests is used up.
    Budget,
    /// The provider does not answer, or says that it cannot now.
    Unavailable,
    /// Its certificate is not one that we trust.
    Tls,
    /// Its answer does not follow the protocol.
    Protocol,
    /// The value or the answer is larger than we take.
    TooLarge,
    /// This machine fails: memory, files.
    Local,
}

impl Class {
    /// Whether it is the provider's word on this one reference. Asking again soon makes no sense.
    pub fn authoritative(self) -> bool {
        matches!(
            self,
            Self::Missing | Self::Invalid | Self::Ambiguous | Self::Denied | Self::TooLarge
        )
    }

    /// Whether the provider says that the machine may not have the value (any more), so that a kept
    /// one must go.
    pub fn withdraws(self) -> bool {
        matches!(self, Self::Missing | Self::Denied)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Ambiguous => "ambiguous",
            Self::Denied => "denied",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate-limited",
            Self::Budget => "budget",
            Self::Unavailable => "unavailable",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::TooLarge => "too-large",
            Self::Local => "local",
        })
    }
}

/// A failure to fetch. Its words name reference and host; nothing that a server sent is in them.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchError {
    /// What kind.
    pub class: Class,
    /// Which reference, if it is about one.
    pub reference: Option<String>,
    /// Which host or file was asked.
    pub place: Option<String>,
    /// What failed and what to do.
    pub what: String,
    /// When the provider wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl FetchError {
    /// An error that names neither reference nor place yet.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Self {
            class,
            reference: None,
            place: None,
            what: what.into(),
            retry_after: None,
        }
    }

    /// Names the host or file, unless one is named already.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place.get_or_insert_with(|| place.to_string());
        self
    }

    /// Names the reference.
    #[must_use]
    pub fn of(mut self, reference: &Reference) -> Self {
        self.reference = Some(reference.to_string());
        self
    }

    /// Says when to ask again.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reference) = &self.reference {
            write!(f, "{reference}: ")?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} ({})", self.what, self.class)?;
        match self.retry_after {
            Some(wait) => write!(f, "; it wants to be asked again in {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<crate::MemoryError> for FetchError {
    fn from(error: crate::MemoryError) -> Self {
        Self::new(Class::Local, error.to_string())
    }
}
