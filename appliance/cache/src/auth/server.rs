//! The Tuist server: who knows which projects a token is for.
//!
//! `GET /api/cache/access` answers `{"projects":["account/project", …]}`. A server that does not
//! have it yet is asked `GET /api/projects`, which answers `projects[].full_name` and `accounts[]`
//! with what is to be known about their bills.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrets::transport::{Https, Limits, Origin, Request, Transport};
use serde::Deserialize;

use super::standing::{FREE_TIER, INACTIVE, Scope, Standing, Unpaid};
use super::{Action, Handle, Project};

/// For name resolution, connection and TLS handshake.
const CONNECT: Duration = Duration::from_secs(3);
/// For the whole question.
const TOTAL: Duration = Duration::from_secs(4);
/// Largest answer in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// Where the Tuist server is.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// `https://host[:port]`; `http://` for loopback only.
    pub url: String,
    /// PEM file of the authorities that are trusted; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// What the server says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is good, and this is what it is for.
    Good(Standing),
    /// It is none: 401.
    Unauthorized,
    /// It is good, and not for what it was asked for: 403.
    Forbidden,
    /// Its account has not paid: 402.
    Payment,
    /// Nothing: the server could not be asked, or did not answer the question; why.
    Nothing(Silence),
}

/// Why the server said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// A label for metrics.
    pub(super) reason: &'static str,
    /// Words for the log.
    pub(super) words: String,
    /// When the server wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// The server.
pub(super) struct Server {
    origin: Origin,
    transport: Box<dyn Transport>,
    /// It answered 404 to `/api/cache/access`.
    older: AtomicBool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.origin)
    }
}

#[derive(Deserialize)]
struct AccessAnswer {
    projects: Vec<String>,
}

#[derive(Deserialize)]
struct OlderAnswer {
    projects: Vec<OlderProject>,
    #[serde(default)]
    accounts: Vec<Account>,
}

#[derive(Deserialize)]
struct OlderProject {
    full_name: String,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    #[serde(default)]
    plan: Option<String>,
    #[serde(default)]
    subscription_active: Option<bool>,
    #[serde(default)]
    thresholds_surpassed: Option<bool>,
}

impl Server {
    /// # Errors
    ///
    /// What is wrong with the address or the authorities.
    pub(super) fn new(settings: &ServerSettings) -> Result<Self, String> {
        let limits = Limits {
            connect: CONNECT,
            total: TOTAL,
            body: LARGEST,
        };
        let transport = Https::new(settings.ca_file.as_deref(), limits);
        Ok(Self::over(
            Origin::parse(&settings.url)?,
            Box::new(transport.map_err(|error| error.to_string())?),
        ))
    }

    pub(super) fn over(origin: Origin, transport: Box<dyn Transport>) -> Self {
        Self {
            origin,
            transport,
            older: AtomicBool::new(false),
        }
    }

    /// Asks about a token.
    pub(super) async fn ask(&self, token: &str, request_id: &str) -> Said {
        if !self.older.load(Ordering::Relaxed) {
            match self
                .get("/api/cache/access", token, request_id, access)
                .await
            {
                // It does not know the question.
                Err(404) => self.older.store(true, Ordering::Relaxed),
                Ok(said) => return said,
                Err(status) => return odd(status),
            }
        }
        match self.get("/api/projects", token, request_id, older).await {
            Ok(said) => said,
            Err(status) => {
                // Neither way: the next question begins with the new one again.
                self.older.store(false, Ordering::Relaxed);
                odd(status)
            }
        }
    }

    /// `Err`: the server answered with a status that means nothing here.
    async fn get(
        &self,
        path: &str,
        token: &str,
        request_id: &str,
        parse: fn(&[u8]) -> Option<Standing>,
    ) -> Result<Said, u16> {
        let request = Request::get(path)
            .header("authorization", format!("Bearer {token}"))
            .header("x-request-id", request_id);
        let answer = match self.transport.send(&self.origin, request).await {
            Ok(answer) => answer,
            Err(error) => {
                return Ok(Said::Nothing(Silence {
                    reason: "transport",
                    words: error.to_string(),
                    retry_after: None,
                }));
            }
        };
        Ok(match answer.status {
            200 => match parse(&answer.body) {
                Some(standing) => Said::Good(standing),
                None => Said::Nothing(Silence {
                    reason: "answer",
                    words: format!("{}: {path} is answered by something else", self.origin),
                    retry_after: None,
                }),
            },
            401 => Said::Unauthorized,
            402 => Said::Payment,
            403 => Said::Forbidden,
            status @ (429 | 500..) => Said::Nothing(Silence {
                reason: if status == 429 { "throttled" } else { "server" },
                words: format!("{}: {path} is answered with {status}", self.origin),
                retry_after: answer.retry_after,
            }),
            status => return Err(status),
        })
    }
}

fn odd(status: u16) -> Said {
    Said::Nothing(Silence {
        reason: "status",
        words: format!("Server responded with status {status}"),
        retry_after: None,
    })
}

fn projects<'a>(names: impl Iterator<Item = &'a str>) -> Scope {
    let projects = names.filter_map(Project::of_full_name);
    // The server lets whoever may use a project's cache write to it too.
    Scope::projects(projects.map(|project| (project, Action::Write)))
}

fn access(body: &[u8]) -> Option<Standing> {
    let answer: AccessAnswer = serde_json::from_slice(body).ok()?;
    Some(Standing {
        scope: projects(answer.projects.iter().map(|name| &**name)),
        ..Standing::default()
    })
}

fn older(body: &[u8]) -> Option<Standing> {
    let answer: OlderAnswer = serde_json::from_slice(body).ok()?;
    let unpaid = answer.accounts.iter().filter_map(|account| {
        let text = match account.plan.as_deref()? {
            "air" if account.thresholds_surpassed == Some(true) => FREE_TIER,
            "pro" | "open_source" | "enterprise" if account.subscription_active == Some(false) => {
                INACTIVE
            }
            _ => return None,
        };
        Some((Handle::parse(&account.name).ok()?, text))
    });
    Some(Standing {
        unpaid: Unpaid::Accounts(unpaid.collect::<BTreeMap<_, _>>()),
        scope: projects(answer.projects.iter().map(|project| &*project.full_name)),
        ..Standing::default()
    })
}

/// Fuzz target.
pub(super) fn fuzz(bytes: &[u8]) {
    let _ = (access(bytes), older(bytes));
}
