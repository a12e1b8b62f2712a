//! Other clients than Tuist's: thin adapters on the one store, a file each with its statuses.
//!
//! Everything is below `/cache/{account}/{project}/`; Turborepo and Nx also at the root, where the
//! token says which project it is.

mod bazel;
mod ccache;
mod free;
mod go;
mod gradle;
mod metro;
mod moon;
mod nx;
mod rush;
pub(crate) mod sccache;
mod statuses;
mod turborepo;

use http::header::{HeaderMap, TRANSFER_ENCODING, USER_AGENT};
use http::{Method, Response};

use crate::accounts::concerning;
use crate::answer::{empty, text};
use crate::auth::{Action, Denial, Grant, Project};
use crate::body::{Body, Received};
use crate::call::Call;
use crate::target::{decode, segments};
use crate::transfer::download;
use statuses::{Statuses, say};

/// Largest object in bytes.
const LIMIT: u64 = store::OBJECT_LIMIT;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Bazel,
    Ccache,
    Gradle,
    Moon,
    Metro,
    Rush,
    Go,
    Turborepo,
    Nx,
    Sccache,
    /// Anything else.
    Free,
}

impl Client {
    /// Of a method, the path below the base, and the headers.
    fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let agent = headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        let is_agent = |name: &str| {
            agent.is_some_and(|agent| {
                let start = agent.as_bytes().get(..name.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
            })
        };
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        match first {
            "v8" if rest.starts_with("artifacts") => return Self::Turborepo,
            "v1" if rest.starts_with("cache/") => return Self::Nx,
            "go" => return Self::Go,
            "metro" => return Self::Metro,
            "rush" => return Self::Rush,
            _ => {}
        }
        if sccache::is(method, path) {
            Self::Sccache
        } else if is_agent("ccache") || ccache::is(path) {
            Self::Ccache
        } else if moon::is(path, is_agent("moon"), headers) {
            Self::Moon
        } else if bazel::is(first, rest) {
            Self::Bazel
        } else if gradle::is(path, headers) {
            Self::Gradle
        } else if headers.contains_key(TRANSFER_ENCODING) {
            Self::Metro
        } else {
            Self::Free
        }
    }

    /// Its label.
    fn group(self) -> &'static str {
        match self {
            Self::Bazel => "bazel",
            Self::Ccache => "ccache",
            Self::Gradle => "gradle-http",
            Self::Moon => "moon",
            Self::Metro => "metro",
            Self::Rush => "rush",
            Self::Go => "go",
            Self::Turborepo => "turborepo",
            Self::Nx => "nx",
            Self::Sccache => "sccache",
            Self::Free => "free",
        }
    }

    fn statuses(self) -> &'static Statuses {
        match self {
            Self::Bazel => &bazel::STATUSES,
            Self::Ccache => &ccache::STATUSES,
            Self::Gradle => &gradle::STATUSES,
            Self::Moon => &moon::STATUSES,
            Self::Metro => &metro::STATUSES,
            Self::Rush => &rush::STATUSES,
            Self::Go => &go::STATUSES,
            Self::Turborepo => &turborepo::STATUSES,
            Self::Nx => &nx::STATUSES,
            Self::Sccache => &sccache::STATUSES,
            Self::Free => &free::STATUSES,
        }
    }
}

/// A path that an adapter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    /// Below the base of a project: account and project, encoded.
    Base(&'a str, &'a str),
    /// At the root.
    Root,
}

/// Splits a path into its place and what lies below.
fn place(path: &str) -> Option<(Place<'_>, &str)> {
    if let Some(rest) = path.strip_prefix("/cache/") {
        let (account, rest) = rest.split_once('/')?;
        let (project, rest) = rest.split_once('/').unwrap_or((rest, ""));
        return Some((Place::Base(account, project), rest));
    }
    let rest = path.strip_prefix('/')?;
    let known = rest == "v8/artifacts"
        || rest == "status"
        || rest.starts_with("v8/artifacts/")
        || rest.starts_with("v1/cache/");
    known.then_some((Place::Root, rest))
}

/// Whether an adapter answers here.
pub(crate) fn is_path(path: &str) -> bool {
    place(path).is_some()
}

/// The label of a request.
pub(crate) fn group(method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static str> {
    let (_, rest) = place(path)?;
    Some(Client::of(method, rest, headers).group())
}

/// What an adapter is told.
struct Asked<'a> {
    call: &'a Call<'a>,
    grant: Grant,
    client: Client,
    /// The segments below the base, decoded.
    path: Vec<std::borrow::Cow<'a, str>>,
}

/// Answers a request for which [`is_path`] holds.
pub(crate) async fn answer(call: &Call<'_>, body: Received) -> Response<Body> {
    let Some((place, rest)) = place(call.path) else {
        return empty(http::StatusCode::NOT_FOUND);
    };
    let client = Client::of(call.method, rest, call.headers);
    if client == Client::Turborepo && call.method == Method::OPTIONS {
        return turborepo::preflight(call);
    }
    // moon asks whether somebody is there; it takes any answer for a yes.
    if rest == "status" && matches!(*call.method, Method::GET | Method::HEAD) {
        return text(http::StatusCode::OK, "OK\n".into());
    }
    let statuses = client.statuses();
    let denied = |denial: &Denial| statuses.denied(call.action(), denial);
    let access = &call.shared.access;
    let project = match place {
        Place::Base(account, project) => base(account, project),
        Place::Root => match access.projects(call.caller()).await {
            Ok(projects) => match projects.only() {
                Some(project) if turborepo::is_team(call, project) => Some(project.clone()),
                _ => return nowhere(call, client),
            },
            Err(denial) => return denied(&denial),
        },
    };
    let granted = access
        .authorize(call.caller(), project.as_ref(), call.action())
        .await;
    let grant = match granted {
        Ok(grant) => grant,
        Err(Denial::Forbidden) if project.is_none() => {
            return say(400, "Account and project are not names that can be");
        }
        Err(denial) => {
            let response = denied(&denial);
            return match project {
                Some(project) => concerning(project.account, false, response),
                None => response,
            };
        }
    };
    let account = grant.project.account.clone();
    let response = granted_to(grant, call, client, rest, body).await;
    concerning(account, true, response)
}

/// Answers a request that may be.
async fn granted_to(
    grant: Grant,
    call: &Call<'_>,
    client: Client,
    rest: &str,
    body: Received,
) -> Response<Body> {
    // A folder, for WebDAV.
    let inner = rest.strip_suffix('/').unwrap_or(rest);
    let path = match inner {
        "" => Ok(Vec::new()),
        inner => segments(inner),
    };
    let (Ok(path), Ok(_)) = (path, &call.query) else {
        return say(400, "The path or the query is not one that can be");
    };
    let asked = Asked {
        call,
        grant,
        client,
        path,
    };
    let is_folder = inner.len() < rest.len() || rest.is_empty();
    match client {
        Client::Turborepo => turborepo::answer(&asked, body).await,
        Client::Nx => nx::answer(&asked, body).await,
        Client::Sccache => sccache::answer(&asked, body).await,
        _ if is_folder => empty(http::StatusCode::NOT_FOUND),
        _ if bazel::is(&asked.path[0], &asked.path[1..].join("/")) => {
            bazel::answer(&asked, body).await
        }
        Client::Gradle => gradle::answer(&asked, body).await,
        _ => free::answer(&asked, body).await,
    }
}

impl Asked<'_> {
    /// The object, or what the client bears best if there is no memory for it now.
    async fn send(&self, object: store::Object) -> Response<Body> {
        match download::send(self.call, &self.grant, object).await {
            Ok(response) => response,
            Err(busy) => self.client.statuses().busy(self.call.action(), busy),
        }
    }
}

/// The answer at the root to a token that is not for exactly one project.
fn nowhere(call: &Call<'_>, client: Client) -> Response<Body> {
    match (client, call.action()) {
        // It fails the run at a 404 here.
        (Client::Nx, Action::Write) => say(403, "The token is not for exactly one project"),
        _ => say(404, ""),
    }
}

/// The project of a base. `None`: it is none.
fn base(account: &str, project: &str) -> Option<Project> {
    Project::parse(&decode(account).ok()?, &decode(project).ok()?).ok()
}

/// 405 with what is possible.
fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = say(405, "This cannot be done here");
    let allowed = http::HeaderValue::from_static(allowed);
    response.headers_mut().insert(http::header::ALLOW, allowed);
    response
}

/// Whether a text is so many hexadecimal digits.
fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(method: &str, path: &str, header: Option<(&'static str, &'static str)>) -> Client {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Client::of(
            &Method::from_bytes(method.as_bytes()).unwrap(),
            path,
            &headers,
        )
    }

    #[test]
    fn clients_are_known_by_what_they_ask() {
        let hash = "0a".repeat(32);
        let ac = format!("ac/{hash}");
        let agent = |name| Some(("user-agent", name));
        assert_eq!(client("GET", &ac, None), Client::Bazel);
        assert_eq!(client("PUT", &format!("cas/{hash}"), None), Client::Bazel);
        assert_eq!(client("GET", &ac, agent("ccache/4.11.2")), Client::Ccache);
        assert_eq!(
            client("GET", &ac, Some(("accept", "application/json"))),
            Client::Moon
        );
        assert_eq!(
            client("GET", &"a".repeat(40), agent("ccache/4.7.5")),
            Client::Ccache
        );
        assert_eq!(
            client("GET", &format!("ab/{}", "c".repeat(38)), None),
            Client::Ccache
        );
        assert_eq!(client("GET", &"a".repeat(32), None), Client::Gradle);
        assert_eq!(
            client("GET", "x", Some(("x-gradle-version", "8.9"))),
            Client::Gradle
        );
        assert_eq!(
            client("PUT", "ab", Some(("transfer-encoding", "chunked"))),
            Client::Metro
        );
        assert_eq!(
            client("GET", "v8/artifacts/status", None),
            Client::Turborepo
        );
        assert_eq!(client("GET", "v1/cache/123", None), Client::Nx);
        assert_eq!(
            client("GET", &format!("0/a/0/{hash}"), None),
            Client::Sccache
        );
        assert_eq!(client("GET", "x/.sccache_check", None), Client::Sccache);
        assert_eq!(client("PROPFIND", "", None), Client::Sccache);
        assert_eq!(client("GET", "go/ab", None), Client::Go);
        assert_eq!(client("GET", "rush/a-b", None), Client::Rush);
        assert_eq!(client("GET", "some/key", None), Client::Free);
    }

    #[test]
    fn places() {
        assert_eq!(
            place("/cache/a/p/ac/b"),
            Some((Place::Base("a", "p"), "ac/b"))
        );
        assert_eq!(place("/cache/a/p"), Some((Place::Base("a", "p"), "")));
        assert_eq!(place("/v1/cache/7"), Some((Place::Root, "v1/cache/7")));
        for other in [
            "/cache/a",
            "/cache",
            "/v1/cache",
            "/v8/artifact",
            "/v8/artifactsx",
            "/x",
            "",
        ] {
            assert_eq!(place(other), None, "{other}");
        }
    }

    /// The label has counters of its own.
    #[test]
    fn every_client_is_counted() {
        for client in [
            Client::Bazel,
            Client::Ccache,
            Client::Gradle,
            Client::Moon,
            Client::Metro,
            Client::Rush,
            Client::Go,
            Client::Turborepo,
            Client::Nx,
            Client::Sccache,
            Client::Free,
        ] {
            assert!(
                crate::traffic::GROUPS.contains(&client.group()),
                "{client:?}"
            );
        }
    }
}
