//! Who may what: every route for every kind of caller.

use std::time::Duration;

use cache::{ConfiguredToken, TokenHash};
use serde_json::json;

use crate::daemon::{Answer, Daemon, PROJECT, sha256};

/// A kind of caller, and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// No token.
    Nobody,
    /// A token that nobody knows.
    Foreign,
    /// One that was good.
    Expired,
    /// One of another account.
    OtherAccount,
    /// One of another project of the account.
    OtherProject,
    /// One that may only read.
    Reader,
    /// One that may write.
    Writer,
}

const CALLERS: [Caller; 7] = [
    Caller::Nobody,
    Caller::Foreign,
    Caller::Expired,
    Caller::OtherAccount,
    Caller::OtherProject,
    Caller::Reader,
    Caller::Writer,
];

impl Caller {
    fn token(self) -> String {
        format!("token-of-{self:?}")
    }

    /// What is configured for it.
    fn configured(self) -> Option<ConfiguredToken> {
        let (projects, write, expires) = match self {
            Self::Nobody | Self::Foreign => return None,
            Self::Expired => ("acme/app", true, Some(Duration::from_secs(1))),
            Self::OtherAccount => ("other/app", true, None),
            Self::OtherProject => ("acme/other", true, None),
            Self::Reader => ("acme/app", false, None),
            Self::Writer => ("acme/app", true, None),
        };
        Some(ConfiguredToken {
            name: format!("{self:?}"),
            hash: TokenHash::of_token(self.token().as_bytes()).unwrap(),
            projects: vec![projects.into()],
            write,
            expires,
        })
    }

    /// Whether it may read or write objects of acme/app.
    fn may(self, write: bool) -> bool {
        self == Self::Writer || (self == Self::Reader && !write)
    }

    fn is_known(self) -> bool {
        !matches!(self, Self::Nobody | Self::Foreign | Self::Expired)
    }
}

/// The statuses of who may not, on one route: with a bad token, and with one for something else.
#[derive(Clone, Copy)]
struct Refused(u16, u16);

const HTTP: Refused = Refused(401, 403);
/// Nx takes a 403 on GET for a failure of the run.
const NX_GET: Refused = Refused(401, 404);

struct Route {
    method: &'static str,
    target: String,
    write: bool,
    refused: Refused,
    body: Body,
    /// What it answers to who may, once each object is there.
    wanted: &'static [u16],
}

enum Body {
    None,
    Bytes(&'static str),
    Json(serde_json::Value),
}

fn routes(upload: &str) -> Vec<Route> {
    let query = |more: &str| format!("{PROJECT}{more}");
    let module = format!("{PROJECT}&hash=h&name=n");
    let open = format!("{PROJECT}&hash=open&name=n&upload_id={upload}");
    let blob = sha256("x");
    let (key, hash) = ("0".repeat(32), "1".repeat(64));
    let object = format!("/cache/acme/app/1/1/1/{hash}");
    let get = |target: String, refused, wanted| Route {
        method: "GET",
        target,
        write: false,
        refused,
        body: Body::None,
        wanted,
    };
    let put = |target: String, refused, wanted| Route {
        method: "PUT",
        target,
        write: true,
        refused,
        body: Body::Bytes("x"),
        wanted,
    };
    let post = |target: String, body, wanted| Route {
        method: "POST",
        target,
        write: true,
        refused: HTTP,
        body,
        wanted,
    };
    let method = |method, route: Route| Route { method, ..route };
    let entry = json!({"cas_id": "a", "entries": []});
    let base = |path: &str| format!("/cache/acme/app/{path}");
    vec![
        Route {
            body: Body::Json(entry),
            ..put(format!("/api/cache/keyvalue?{PROJECT}"), HTTP, &[204])
        },
        get(format!("/api/cache/keyvalue/a?{PROJECT}"), HTTP, &[200]),
        post(
            format!("/api/cache/cas/a?{PROJECT}"),
            Body::Bytes("x"),
            &[204],
        ),
        get(format!("/api/cache/cas/a?{PROJECT}"), HTTP, &[200]),
        method(
            "HEAD",
            get(format!("/api/cache/module/x?{module}"), HTTP, &[404]),
        ),
        get(format!("/api/cache/module/x?{module}"), HTTP, &[404]),
        post(
            format!("/api/cache/module/start?{module}"),
            Body::None,
            &[200],
        ),
        post(
            format!("/api/cache/module/part?{open}&part_number=1"),
            Body::Bytes("x"),
            &[204],
        ),
        post(
            format!("/api/cache/module/complete?{open}"),
            Body::Json(json!({"parts": [1]})),
            &[204],
        ),
        put(format!("/api/cache/gradle/k?{PROJECT}"), HTTP, &[201]),
        get(format!("/api/cache/gradle/k?{PROJECT}"), HTTP, &[200]),
        put(base(&format!("cas/{blob}")), HTTP, &[201]),
        get(base(&format!("cas/{blob}")), HTTP, &[200]),
        put(base(&format!("ac/{hash}")), HTTP, &[201]),
        get(base(&format!("ac/{hash}")), HTTP, &[200]),
        put(base(&key), HTTP, &[201]),
        get(base(&key), HTTP, &[200]),
        put(base("free/key"), HTTP, &[201]),
        get(base("free/key"), HTTP, &[200]),
        method("HEAD", get(base("free/key"), HTTP, &[200])),
        put(base("v1/cache/1"), HTTP, &[200]),
        get(base("v1/cache/1"), NX_GET, &[200]),
        put(base("v8/artifacts/a"), HTTP, &[202]),
        get(base("v8/artifacts/a"), HTTP, &[200]),
        get(base("v8/artifacts/status"), HTTP, &[200]),
        post(base("v8/artifacts/events"), Body::Json(json!([])), &[200]),
        put(base(".sccache_check"), HTTP, &[201]),
        get(base(".sccache_check"), HTTP, &[200]),
        put(object.clone(), HTTP, &[201]),
        get(object.clone(), HTTP, &[200]),
        method("PROPFIND", get(object, HTTP, &[207])),
        method(
            "MKCOL",
            Route {
                body: Body::None,
                ..put(base("a/"), HTTP, &[201])
            },
        ),
        // Last: what was there is gone.
        Route {
            body: Body::None,
            ..method(
                "DELETE",
                put(format!("/api/cache/clean?{}", query("")), HTTP, &[204]),
            )
        },
    ]
}

async fn ask(daemon: &Daemon, route: &Route, caller: Caller, target: &str) -> Answer {
    let call = daemon.call(route.method, target);
    let call = match caller {
        Caller::Nobody => call.no_token(),
        caller => call.token(&caller.token()),
    };
    match &route.body {
        Body::None => call,
        Body::Bytes(bytes) => call.bytes(*bytes),
        Body::Json(json) => call.json(json),
    }
    .send()
    .await
}

async fn daemon() -> Daemon {
    Daemon::start_with(|settings| {
        settings.auth.tokens = CALLERS
            .iter()
            .filter_map(|caller| caller.configured())
            .collect();
        // A caller that is refused often is not to be throttled here.
        settings.auth.failing_tokens = 1000;
    })
    .await
}

#[tokio::test]
async fn every_route_lets_in_who_may_and_nobody_else() {
    let daemon = daemon().await;
    let start = format!("/api/cache/module/start?{PROJECT}&hash=open&name=n");
    let writer = Caller::Writer.token();
    let opened = daemon.call("POST", start).token(&writer).send().await;
    let id = opened.json()["upload_id"].as_str().unwrap().to_owned();
    let routes = routes(&id);
    // Those who may not first, so that nothing of theirs could help those who come later.
    for route in &routes {
        for caller in CALLERS.iter().filter(|caller| !caller.may(route.write)) {
            let answer = ask(&daemon, route, *caller, &route.target).await;
            let wanted = match caller.is_known() {
                false => route.refused.0,
                true => route.refused.1,
            };
            let what = format!("{} {} {caller:?}", route.method, route.target);
            assert_eq!(answer.status.as_u16(), wanted, "{what}");
        }
    }
    for route in &routes {
        let callers = if route.write {
            &[Caller::Writer][..]
        } else {
            &[Caller::Reader, Caller::Writer]
        };
        for caller in callers {
            let answer = ask(&daemon, route, *caller, &route.target).await;
            let what = format!("{} {} {caller:?}", route.method, route.target);
            assert!(
                route.wanted.contains(&answer.status.as_u16()),
                "{what}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn who_is_refused_changes_nothing() {
    let daemon = daemon().await;
    let writer = Caller::Writer.token();
    let target = "/cache/acme/app/free/key";
    daemon.put(target, "right").token(&writer).send().await;
    for caller in CALLERS.iter().filter(|caller| !caller.may(true)) {
        for route in routes("00000000-0000-7000-8000-000000000000")
            .iter()
            .filter(|route| route.write)
        {
            ask(&daemon, route, *caller, &route.target).await;
        }
    }
    assert_eq!(daemon.get(target).token(&writer).send().await.body, "right");
    let stored = daemon
        .metric("larder_cache_client_upload_success_total{client=\"free\"}")
        .await;
    assert_eq!(stored, 1.0);
}

#[tokio::test]
async fn projects_do_not_see_each_other() {
    let daemon = daemon().await;
    for (caller, account, project) in [
        (Caller::Writer, "acme", "app"),
        (Caller::OtherProject, "acme", "other"),
        (Caller::OtherAccount, "other", "app"),
    ] {
        let target = format!("/cache/{account}/{project}/free/key");
        let answer = daemon.get(&target).token(&caller.token()).send().await;
        assert_eq!(answer.status, 404, "{caller:?}");
        let bytes = format!("{caller:?}");
        let put = daemon
            .put(&target, bytes.clone())
            .token(&caller.token())
            .send()
            .await;
        assert_eq!(put.status, 201);
        let got = daemon.get(&target).token(&caller.token()).send().await;
        assert_eq!(got.body, bytes);
    }
}

#[tokio::test]
async fn at_the_root_the_token_names_the_project() {
    let daemon = daemon().await;
    let writer = Caller::Writer.token();
    for (below, root, status) in [
        ("/cache/acme/app/v1/cache/7", "/v1/cache/7", 200),
        (
            "/cache/acme/app/v8/artifacts/7",
            "/v8/artifacts/7?slug=acme",
            202,
        ),
    ] {
        let put = daemon.put(root, "x").token(&writer).send().await;
        assert_eq!(put.status, status);
        assert_eq!(daemon.get(below).token(&writer).send().await.body, "x");
        assert_eq!(
            daemon
                .get(root)
                .token(&Caller::Reader.token())
                .send()
                .await
                .body,
            "x"
        );
        let other = daemon
            .get(root.replace("acme", "other"))
            .token(&Caller::OtherAccount.token());
        assert_eq!(other.send().await.status, 404);
        // Tokens that may not write.
        let put = daemon
            .put(root, "x")
            .token(&Caller::Reader.token())
            .send()
            .await;
        assert_eq!(put.status, 403);
    }
    for (query, status) in [
        ("?teamId=team_acme", 200),
        ("?slug=ACME", 200),
        ("?slug=other", 404),
        ("?slug=acme&teamId=team_other", 404),
    ] {
        let answer = daemon
            .get(format!("/v8/artifacts/7{query}"))
            .token(&writer)
            .send()
            .await;
        assert_eq!(answer.status, status, "{query}");
    }
}
