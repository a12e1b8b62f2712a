//! Who may: from the credential of a request and the project that it is about to a [`Grant`] or a
//! [`Denial`].

mod credential;
mod denial;
mod handle;
mod token;

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

pub(crate) use credential::{Credential, Fingerprint};
pub(crate) use denial::Denial;
pub(crate) use handle::{Handle, NoHandle, Project};
pub use token::TokenHash;
pub(crate) use token::{parse_hex, to_hex};

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Objects are read.
    Read,
    /// Objects are stored or removed.
    Write,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    /// Its headers, of which the credential counts.
    pub(crate) headers: &'a HeaderMap,
    /// Where it comes from.
    pub(crate) peer: IpAddr,
    /// Goes along with questions to the Tuist server.
    pub(crate) request_id: &'a str,
}

/// The right to do what was asked for, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The project, as it names the objects.
    pub(crate) project: Project,
    /// Says which token it was.
    pub(crate) fingerprint: Fingerprint,
    /// Whose token it is, if it says so.
    pub(crate) subject: Option<Arc<str>>,
}

impl Grant {
    /// What the record of an object keeps about who wrote it.
    pub(crate) fn writer(&self, request_id: &str) -> store::Writer {
        store::Writer {
            fingerprint: self.fingerprint.0,
            subject: self.subject.as_deref().unwrap_or_default().into(),
            request: request_id.into(),
        }
    }
}

/// The projects that a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Projects {
    /// All there are.
    All,
    /// These, in order, each with the most that may be done.
    These(Vec<(Project, Action)>),
}

impl Projects {
    /// The one project of the token. `None`: it is for several, or for none.
    pub(crate) fn only(&self) -> Option<&Project> {
        match self {
            Self::These(projects) => match &projects[..] {
                [(project, _)] => Some(project),
                _ => None,
            },
            Self::All => None,
        }
    }
}

/// Decides who may.
#[derive(Debug)]
pub(crate) struct Access {
    /// The one token that is for everything.
    token: Option<TokenHash>,
}

impl Access {
    pub(crate) fn new(token: Option<TokenHash>) -> Self {
        Self { token }
    }

    /// Whether the caller may do this to the project. Without a project (none was named, or what
    /// was named cannot be one) nobody may: then the answer says whether the credential is good
    /// ([`Denial::Forbidden`]) or not.
    ///
    /// # Errors
    ///
    /// It may not.
    pub(crate) async fn authorize(
        &self,
        caller: Caller<'_>,
        project: Option<&Project>,
        _action: Action,
    ) -> Result<Grant, Denial> {
        let credential = self.known(caller)?;
        let project = project.ok_or(Denial::Forbidden)?;
        Ok(Grant {
            project: project.clone(),
            fingerprint: credential.fingerprint(),
            subject: None,
        })
    }

    /// The projects that the caller's token is for.
    ///
    /// # Errors
    ///
    /// It shows no good token, or who would know cannot be asked.
    pub(crate) async fn projects(&self, caller: Caller<'_>) -> Result<Projects, Denial> {
        self.known(caller)?;
        Ok(Projects::All)
    }

    fn known(&self, caller: Caller<'_>) -> Result<Credential, Denial> {
        let credential = Credential::of(caller.headers)?;
        match &self.token {
            Some(token) if token.is(&credential) => Ok(credential),
            _ => Err(Denial::Unauthorized),
        }
    }
}
