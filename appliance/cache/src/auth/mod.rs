//! Who may: from the credential of a request and the project that it is about to a [`Grant`] or a
//! [`Denial`].

mod bounded;
mod configured;
mod credential;
mod denial;
mod handle;
mod introspection;
mod jwt;
mod metrics;
mod revoked;
mod server;
mod standing;
mod throttle;
mod token;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use secrets::clock::Clock;

use crate::metrics::Text;
use bounded::Bounded;
use configured::{Configured, configured};
use introspection::{Introspection, Question};
use jwt::{Keys, Verified};
use metrics::{AuthMetrics, Method};
use revoked::Revoked;
use server::Server;
use standing::{Scope, Standing};
use throttle::Throttle;

pub use configured::ConfiguredToken;
pub use jwt::SharedAlgorithm;
pub use revoked::revoke;
pub use server::ServerSettings;

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
    /// Those of these accounts, and perhaps some of others.
    Accounts(Vec<Handle>),
}

impl Projects {
    /// The one project of the token. `None`: it is for several, or for none.
    pub(crate) fn only(&self) -> Option<&Project> {
        match self {
            Self::These(projects) => match &projects[..] {
                [(project, _)] => Some(project),
                _ => None,
            },
            Self::All | Self::Accounts(_) => None,
        }
    }
}

/// What authorization is told at its start.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// The one token that is for everything, if there is one.
    pub token: Option<TokenHash>,
    /// Tokens of the configuration.
    pub tokens: Vec<ConfiguredToken>,
    /// `iss` of JWTs.
    pub issuer: String,
    /// The algorithm of the shared secret of JWTs.
    pub algorithm: SharedAlgorithm,
    /// The Tuist server that knows tokens that are not known here.
    pub server: Option<ServerSettings>,
    /// Most different failing tokens of one source within `failing_window`.
    pub failing_tokens: usize,
    /// See `failing_tokens`.
    pub failing_window: Duration,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            token: None,
            tokens: Vec::new(),
            issuer: "tuist".into(),
            algorithm: SharedAlgorithm::Hs512,
            server: None,
            failing_tokens: 64,
            failing_window: Duration::from_secs(60),
        }
    }
}

/// Most valid JWTs that are remembered.
const JWTS: usize = 100_000;

/// Decides who may.
#[derive(Debug)]
pub(crate) struct Access {
    clock: Arc<dyn Clock>,
    issuer: String,
    algorithm: SharedAlgorithm,
    configured: Configured,
    /// The token that may do everything, if there is one.
    token: RwLock<Option<TokenHash>>,
    revoked: Revoked,
    keys: RwLock<Keys>,
    /// Valid JWTs, until the keys change: verifying takes longer than all the rest.
    jwts: RwLock<Bounded<Jwt>>,
    server: Option<Arc<Introspection>>,
    metrics: Arc<AuthMetrics>,
}

#[derive(Clone, Debug)]
struct Jwt {
    standing: Arc<Standing>,
    complete: bool,
}

impl Access {
    /// `state`: the folder of the list of revoked tokens.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings.
    pub(crate) fn new(
        settings: &AuthSettings,
        state: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let server = settings.server.as_ref().map(Server::new).transpose()?;
        Self::with_server(settings, state, clock, server)
    }

    fn with_server(
        settings: &AuthSettings,
        state: Option<&Path>,
        clock: Arc<dyn Clock>,
        server: Option<Server>,
    ) -> Result<Self, String> {
        let metrics = Arc::<AuthMetrics>::default();
        let configured = configured(&settings.tokens)?;
        let server = server.map(|server| {
            Arc::new(Introspection::new(
                server,
                Arc::clone(&clock),
                Arc::clone(&metrics),
                Throttle::new(settings.failing_tokens, settings.failing_window),
            ))
        });
        Ok(Self {
            clock,
            issuer: settings.issuer.clone(),
            algorithm: settings.algorithm,
            configured,
            token: RwLock::new(settings.token.clone()),
            revoked: Revoked::open(state),
            keys: RwLock::new(Keys::new(&settings.issuer, None, None)?),
            jwts: RwLock::new(Bounded::new(JWTS)),
            server,
            metrics,
        })
    }

    /// Whether there is any way to get in.
    pub(crate) fn is_closed(&self) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let none = self.configured.is_empty() && token.is_none();
        none && self.server.is_none() && keys.is_empty()
    }

    /// Takes a token that may do everything, or none. Whether it is another one than before.
    pub(crate) fn set_token(&self, token: Option<TokenHash>) -> bool {
        let mut current = self.token.write().unwrap_or_else(PoisonError::into_inner);
        let another = *current != token;
        *current = token;
        another
    }

    /// Takes other keys for JWTs: a shared secret, a bundle of public keys in PEM. All tokens are
    /// verified anew.
    ///
    /// # Errors
    ///
    /// They are no keys; the old ones stay.
    pub(crate) fn set_keys(
        &self,
        secret: Option<&[u8]>,
        bundle: Option<&[u8]>,
    ) -> Result<(), String> {
        let shared = secret.map(|secret| (self.algorithm, secret));
        let keys = Keys::new(&self.issuer, shared, bundle)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.jwts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(())
    }

    /// Looks whether tokens were revoked.
    pub(crate) fn look(&self) {
        self.revoked.look();
    }

    /// Writes metrics.
    pub(crate) fn write(&self, text: &mut Text) {
        let held = self.server.as_ref().map_or(0, |server| server.len());
        self.metrics.write(text, held);
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
        action: Action,
    ) -> Result<Grant, Denial> {
        let credential = Credential::of(caller.headers)?;
        let standing = self.standing(&credential, caller, project, action).await?;
        Ok(Grant {
            // Without one nothing is granted.
            project: project.ok_or(Denial::Forbidden)?.clone(),
            fingerprint: credential.fingerprint(),
            subject: standing.subject.clone(),
        })
    }

    /// The projects that the caller's token is for.
    ///
    /// # Errors
    ///
    /// It shows no good token, or who would know cannot be asked.
    pub(crate) async fn projects(&self, caller: Caller<'_>) -> Result<Projects, Denial> {
        let credential = Credential::of(caller.headers)?;
        match self.known(&credential)? {
            Some(Jwt { standing, .. }) => Ok(standing.listed()),
            None => match &self.server {
                None => Err(Denial::Unauthorized),
                Some(server) => {
                    let question = question(&credential, caller, None, Action::Read);
                    Ok(server.standing(question).await?.listed())
                }
            },
        }
    }

    async fn standing(
        &self,
        credential: &Credential<'_>,
        caller: Caller<'_>,
        project: Option<&Project>,
        action: Action,
    ) -> Result<Arc<Standing>, Denial> {
        let known = self.known(credential)?;
        if let Some(Jwt { standing, complete }) = known {
            let verdict = standing.decide(project, action, self.clock.now());
            let ask = !complete && verdict == Err(Denial::Forbidden) && project.is_some();
            if !ask || self.server.is_none() {
                verdict?;
                self.metrics
                    .authorized(match complete && standing.expires.is_none() {
                        true => Method::Configured,
                        false => Method::Jwt,
                    });
                return Ok(standing);
            }
        }
        match &self.server {
            None => Err(Denial::Unauthorized),
            Some(server) => {
                // Boxed: it is large, and asked rarely.
                Box::pin(server.authorize(question(credential, caller, project, action))).await
            }
        }
    }

    /// What is known about a token without the server. `Ok(None)`: nothing.
    fn known(&self, credential: &Credential<'_>) -> Result<Option<Jwt>, Denial> {
        let digest = credential.digest();
        if self.revoked.has(digest) {
            if let Some(server) = &self.server {
                server.void(digest);
            }
            return Err(Denial::Unauthorized);
        }
        if let Some(standing) = self.configured.get(digest) {
            return match standing.ended(self.clock.now()) {
                true => Err(Denial::Unauthorized),
                false => Ok(Some(Jwt {
                    standing: Arc::clone(standing),
                    complete: true,
                })),
            };
        }
        let is_token = {
            let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
            token.as_ref().is_some_and(|token| token.digest() == digest)
        };
        if is_token {
            let standing = Standing {
                scope: Scope::All(Action::Write),
                ..Standing::default()
            };
            return Ok(Some(Jwt {
                standing: standing.into(),
                complete: true,
            }));
        }
        let kept = {
            let jwts = self.jwts.read().unwrap_or_else(PoisonError::into_inner);
            jwts.get(digest).cloned()
        };
        let jwt = match kept {
            Some(jwt) => Some(jwt),
            None => self.verify(credential)?,
        };
        match jwt {
            Some(jwt) if jwt.standing.ended(self.clock.now()) => Err(Denial::Unauthorized),
            jwt => Ok(jwt),
        }
    }

    fn verify(&self, credential: &Credential<'_>) -> Result<Option<Jwt>, Denial> {
        // Held until the answer is kept: otherwise one by old keys could be kept after they changed.
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            return Ok(None);
        }
        match keys.verify(credential.token(), self.clock.now()) {
            Verified::Unknown => Ok(None),
            Verified::Invalid(claim) => {
                log::debug!("token {}: {claim} is not valid", credential.fingerprint());
                Err(Denial::Unauthorized)
            }
            Verified::Valid { standing, complete } => {
                let jwt = Jwt {
                    standing: Arc::new(standing),
                    complete,
                };
                let mut jwts = self.jwts.write().unwrap_or_else(PoisonError::into_inner);
                jwts.put(*credential.digest(), jwt.clone());
                Ok(Some(jwt))
            }
        }
    }
}

fn question<'a>(
    credential: &'a Credential<'a>,
    caller: Caller<'a>,
    project: Option<&'a Project>,
    action: Action,
) -> Question<'a> {
    Question {
        credential,
        peer: caller.peer,
        request_id: caller.request_id,
        project,
        action,
    }
}

/// Fuzz target.
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut headers = HeaderMap::new();
    if let Ok(value) = http::HeaderValue::from_bytes(bytes) {
        headers.insert(http::header::AUTHORIZATION, value);
    }
    let _ = Credential::of(&headers);
    let _ = (Handle::parse(&text), Project::of_full_name(&text));
    let _ = TokenHash::from_hex(&text);
    jwt::fuzz(bytes);
    server::fuzz(bytes);
    revoked::fuzz(&text);
}

#[cfg(test)]
mod tests;
