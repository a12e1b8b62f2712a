//! What the Tuist server said about tokens, kept for a while.
//!
//! | the server said | it holds |
//! |---|---|
//! | these projects | 600 s; up to 25 min after it was said while the server says nothing more; never past the end of the token |
//! | a project is not among them | 3 s, then the server is asked again |
//! | 401 | takes everything of the token away, and holds for 3 s |
//! | 402, 403 | takes the project away, and holds for 3 s |
//! | nothing | holds nothing: what was said before goes on, or the answer is 503 |

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use secrets::clock::Clock;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::bounded::Bounded;
use super::metrics::{AuthMetrics, Method};
use super::server::{Said, Server};
use super::standing::{FREE_TIER, Standing};
use super::throttle::Throttle;
use super::{Action, Credential, Denial, Project, jwt};

/// How long an answer is fresh.
pub(super) const FRESH: Duration = Duration::from_secs(600);
/// How long a refusal holds, and the pause between two questions that were not answered.
pub(super) const REFUSED: Duration = Duration::from_secs(3);
/// How long an answer is good while the server is silent.
pub(super) const GRACE: Duration = Duration::from_secs(25 * 60);
/// Most questions on their way.
const IN_FLIGHT: usize = 32;
/// Most that wait for their turn.
const WAITING: usize = 512;
/// Longest wait for a turn.
const TURN: Duration = Duration::from_secs(3);
/// Most tokens whose answers are kept.
const ENTRIES: usize = 100_000;
/// Most refused tokens that are remembered.
const REFUSALS: usize = 10_000;

/// An answer.
#[derive(Clone, Debug)]
struct Entry {
    standing: Arc<Standing>,
    /// When the server said so. `None`: it never did, it only said what the token is not for.
    confirmed: Option<Instant>,
    /// When it was asked last.
    asked: Instant,
    /// The last question was not answered.
    silent: bool,
}

/// How a question ended, for everybody who waited for it.
#[derive(Clone, Debug)]
enum Outcome {
    Said(Said),
    /// Too many questions were on their way.
    Busy,
}

type Waiting = watch::Receiver<Option<Outcome>>;

/// The answers, and the questions on their way.
#[derive(Debug)]
pub(super) struct Introspection {
    server: Server,
    clock: Arc<dyn Clock>,
    metrics: Arc<AuthMetrics>,
    throttle: Throttle,
    entries: RwLock<Bounded<Entry>>,
    refusals: Mutex<Bounded<Instant>>,
    flights: Mutex<HashMap<[u8; 32], Waiting>>,
    turns: Semaphore,
}

/// A question about one request.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) credential: &'a Credential<'a>,
    pub(super) peer: IpAddr,
    pub(super) request_id: &'a str,
    pub(super) project: Option<&'a Project>,
    pub(super) action: Action,
}

/// What is known without asking.
enum Known {
    /// This.
    Fresh(Result<Arc<Standing>, Denial>),
    /// Something older that would allow it while the server is silent; whether it was silent just
    /// now.
    Held(Arc<Standing>, bool),
    /// Nothing that would do.
    Nothing,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps, whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Introspection {
    pub(super) fn new(
        server: Server,
        clock: Arc<dyn Clock>,
        metrics: Arc<AuthMetrics>,
        throttle: Throttle,
    ) -> Self {
        Self {
            server,
            clock,
            metrics,
            throttle,
            entries: RwLock::new(Bounded::new(ENTRIES)),
            refusals: Mutex::new(Bounded::new(REFUSALS)),
            flights: Mutex::default(),
            turns: Semaphore::new(IN_FLIGHT),
        }
    }

    /// The standing of a token that may do what is asked for.
    ///
    /// # Errors
    ///
    /// It may not, or nobody knows.
    pub(super) async fn authorize(
        self: &Arc<Self>,
        question: Question<'_>,
    ) -> Result<Arc<Standing>, Denial> {
        let digest = question.credential.digest();
        let held = match self.known(question) {
            Known::Fresh(verdict) => {
                self.metrics.cache_hits.add(1);
                if verdict.is_ok() {
                    self.metrics.authorized(Method::Cache);
                }
                return verdict;
            }
            Known::Held(standing, true) => {
                // The server was silent a moment ago. Nobody waits for it again; when it speaks, it
                // is heard.
                self.metrics.cache_hits.add(1);
                self.metrics.authorized(Method::Cache);
                if self.asked_long_ago(digest) {
                    let _ = self.flight(question);
                }
                return Ok(standing);
            }
            Known::Held(standing, false) => Some(standing),
            Known::Nothing => None,
        };
        self.metrics.cache_misses.add(1);
        if held.is_none()
            && !self.is_known(digest)
            && let Some(wait) = self.throttle.blocked(question.peer)
        {
            self.metrics.throttled.add(1);
            return Err(Denial::Throttled { retry_after: wait });
        }
        match self.wait(question).await {
            Outcome::Said(Said::Good(_)) => {
                // As it was written down, with the end of the token.
                let now = self.clock.now();
                let entry = self.entry(digest).ok_or(Denial::Unauthorized)?;
                entry
                    .standing
                    .decide(question.project, question.action, now)?;
                self.metrics.authorized(Method::Server);
                Ok(entry.standing)
            }
            Outcome::Said(Said::Unauthorized) => {
                self.throttle.failed(question.peer, *digest);
                Err(Denial::Unauthorized)
            }
            Outcome::Said(Said::Forbidden) => {
                self.void_project(question);
                Err(Denial::Forbidden)
            }
            Outcome::Said(Said::Payment) => {
                self.void_project(question);
                Err(Denial::Payment(FREE_TIER))
            }
            Outcome::Said(Said::Nothing(silence)) => match held {
                Some(standing) => {
                    self.metrics.authorized(Method::Cache);
                    Ok(standing)
                }
                // What it said lately about another project, it said about this one too.
                None => match self.known(question) {
                    Known::Fresh(verdict) => verdict,
                    _ => Err(unavailable(silence.retry_after)),
                },
            },
            Outcome::Busy => match held {
                Some(standing) => {
                    self.metrics.authorized(Method::Cache);
                    Ok(standing)
                }
                None => Err(Denial::Throttled {
                    retry_after: jittered(None),
                }),
            },
        }
    }

    /// What a good token is for, whatever that is.
    ///
    /// # Errors
    ///
    /// It is not good, or nobody knows.
    pub(super) async fn standing(
        self: &Arc<Self>,
        question: Question<'_>,
    ) -> Result<Arc<Standing>, Denial> {
        let digest = question.credential.digest();
        let fresh = |entry: &Entry, limit| {
            entry
                .confirmed
                .is_some_and(|confirmed| confirmed.elapsed() < limit)
        };
        if let Some(entry) = self.entry(digest).filter(|entry| fresh(entry, FRESH)) {
            return Ok(entry.standing);
        }
        // Nobody may do anything to no project: only the reason counts.
        match self.authorize(question).await {
            Err(Denial::Forbidden) => {}
            Err(denial @ Denial::Unauthorized) => return Err(denial),
            Err(denial) if !self.entry(digest).is_some_and(|entry| fresh(&entry, GRACE)) => {
                return Err(denial);
            }
            _ => {}
        }
        self.entry(digest)
            .map(|entry| entry.standing)
            .ok_or(Denial::Forbidden)
    }

    fn entry(&self, digest: &[u8; 32]) -> Option<Entry> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(digest).cloned()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Bounded<Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_known(&self, digest: &[u8; 32]) -> bool {
        self.entry(digest)
            .is_some_and(|entry| entry.confirmed.is_some())
    }

    fn asked_long_ago(&self, digest: &[u8; 32]) -> bool {
        self.entry(digest)
            .is_some_and(|entry| entry.asked.elapsed() >= REFUSED)
    }

    fn known(&self, question: Question<'_>) -> Known {
        let digest = question.credential.digest();
        let Some(entry) = self.entry(digest) else {
            let refused = lock(&self.refusals).get(digest).copied();
            return match refused {
                Some(when) if when.elapsed() < REFUSED => Known::Fresh(Err(Denial::Unauthorized)),
                _ => Known::Nothing,
            };
        };
        let now = self.clock.now();
        let verdict = entry
            .standing
            .decide(question.project, question.action, now);
        let age = entry.confirmed.map(|confirmed| confirmed.elapsed());
        match verdict {
            // Its end is its own; no server makes it longer.
            Err(Denial::Unauthorized) => Known::Fresh(Err(Denial::Unauthorized)),
            Err(denial) if entry.asked.elapsed() < REFUSED => {
                let certain = !entry.silent || age.is_some_and(|age| age < FRESH);
                Known::Fresh(Err(if certain { denial } else { unavailable(None) }))
            }
            Err(_) => Known::Nothing,
            Ok(()) if age.is_some_and(|age| age < FRESH) => Known::Fresh(Ok(entry.standing)),
            Ok(()) if age.is_some_and(|age| age < GRACE) => {
                Known::Held(entry.standing, entry.silent)
            }
            Ok(()) => Known::Nothing,
        }
    }

    /// Takes a project away from what is known of a token, and remembers that for a moment.
    fn void_project(&self, question: Question<'_>) {
        let digest = question.credential.digest();
        let mut entries = self.write();
        let now = Instant::now();
        match (entries.get_mut(digest), question.project) {
            (Some(entry), Some(project)) => {
                entry.standing = Arc::new(entry.standing.without(project));
                (entry.asked, entry.silent) = (now, false);
            }
            (Some(entry), None) => (entry.asked, entry.silent) = (now, false),
            (None, _) => entries.put(
                *digest,
                Entry {
                    standing: Arc::default(),
                    confirmed: None,
                    asked: now,
                    silent: false,
                },
            ),
        }
    }

    /// Waits for the answer to the question about this token, which is asked once.
    async fn wait(self: &Arc<Self>, question: Question<'_>) -> Outcome {
        let Some(mut waiting) = self.flight(question) else {
            return Outcome::Busy;
        };
        let outcome = waiting.wait_for(Option::is_some).await;
        // A task that panicked answers nothing.
        outcome
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or(Outcome::Busy)
    }

    /// The question about this token: the one on its way, or a new one. It runs by itself, whether
    /// or not the client stays. `None`: there are too many.
    fn flight(self: &Arc<Self>, question: Question<'_>) -> Option<Waiting> {
        let digest = *question.credential.digest();
        let mut flights = lock(&self.flights);
        if let Some(waiting) = flights.get(&digest) {
            return Some(waiting.clone());
        }
        if flights.len() >= IN_FLIGHT + WAITING {
            return None;
        }
        let (sender, waiting) = watch::channel(None);
        flights.insert(digest, waiting.clone());
        let landing = Landing {
            introspection: Arc::clone(self),
            digest,
        };
        let token = Zeroizing::new(question.credential.token().to_owned());
        let request_id = question.request_id.to_owned();
        tokio::spawn(async move {
            let outcome = landing.introspection.ask(digest, &token, &request_id).await;
            // No new question about the token begins before this one's answer is written down.
            drop(landing);
            let _ = sender.send(Some(outcome));
        });
        Some(waiting)
    }

    async fn ask(&self, digest: [u8; 32], token: &str, request_id: &str) -> Outcome {
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN, self.turns.acquire()).await else {
            return Outcome::Busy;
        };
        self.metrics.server_requests.add(1);
        let began = Instant::now();
        let said = self.server.ask(token, request_id).await;
        self.metrics.server_durations.observe(began.elapsed());
        let now = Instant::now();
        let said = match said {
            Said::Good(mut standing) => {
                standing.expires = jwt::says_expires(token);
                let entry = Entry {
                    standing: Arc::new(standing.clone()),
                    confirmed: Some(now),
                    asked: now,
                    silent: false,
                };
                self.write().put(digest, entry);
                Said::Good(standing)
            }
            Said::Unauthorized => {
                self.write().remove(&digest);
                lock(&self.refusals).put(digest, now);
                self.metrics.server_error("unauthorized");
                Said::Unauthorized
            }
            Said::Nothing(silence) => {
                self.metrics.server_error(silence.reason);
                self.metrics.complain(&silence.words);
                if let Some(entry) = self.write().get_mut(&digest) {
                    (entry.asked, entry.silent) = (now, true);
                }
                Said::Nothing(silence)
            }
            said @ (Said::Forbidden | Said::Payment) => {
                self.metrics.server_error("forbidden");
                said
            }
        };
        Outcome::Said(said)
    }

    /// Forgets a token.
    pub(super) fn void(&self, digest: &[u8; 32]) {
        self.write().remove(digest);
    }

    /// Tokens whose answers are kept.
    pub(super) fn len(&self) -> usize {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Takes a question off the list however it ends.
struct Landing {
    introspection: Arc<Introspection>,
    digest: [u8; 32],
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.introspection.flights).remove(&self.digest);
    }
}

fn unavailable(retry_after: Option<Duration>) -> Denial {
    Denial::Unavailable {
        retry_after: jittered(retry_after),
    }
}

/// When to try again: not all at the same moment.
fn jittered(asked: Option<Duration>) -> Duration {
    let base = asked
        .unwrap_or(Duration::from_secs(2))
        .clamp(Duration::from_secs(1), Duration::from_secs(60));
    base + crate::jitter::up_to(base)
}
