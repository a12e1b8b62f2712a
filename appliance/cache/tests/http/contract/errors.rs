//! 1.2: how errors look, and which of two comes first.

use crate::daemon::{Daemon, PROJECT};

#[tokio::test]
async fn without_a_credential_there_is_nothing() {
    let daemon = Daemon::start().await;
    for target in [
        "/api/cache/cas/a",
        "/api/cache/keyvalue/a",
        "/api/cache/nothing",
        "/api/cache/",
    ] {
        let answer = daemon
            .get(format!("{target}?{PROJECT}"))
            .no_token()
            .send()
            .await;
        assert_eq!(answer.status, 401, "{target}");
        assert_eq!(answer.message(), "Missing Authorization header");
        let empty = daemon
            .get(format!("{target}?{PROJECT}"))
            .header("authorization", "");
        assert_eq!(empty.send().await.message(), "Missing Authorization header");
        let answer = daemon
            .get(format!("{target}?{PROJECT}"))
            .token("wrong")
            .send()
            .await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.message()),
            (401, "Unauthorized")
        );
    }
}

#[tokio::test]
async fn what_is_no_route_is_not_found() {
    let daemon = Daemon::start().await;
    for (method, path) in [
        ("PUT", "cas/a"),
        ("GET", "cas/"),
        ("GET", "cas/a/b"),
        ("GET", "module"),
        ("DELETE", "cas/a"),
        ("GET", "x"),
    ] {
        let answer = daemon
            .call(method, format!("/api/cache/{path}?{PROJECT}"))
            .send()
            .await;
        assert_eq!(answer.status, 404, "{method} {path}");
    }
    for path in ["/", "/api", "/x", "/cache", "/metrics", "/oban"] {
        assert_eq!(daemon.get(path).send().await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_absent_handle_is_no_access_and_an_empty_one_is_named() {
    let daemon = Daemon::start().await;
    for query in [
        "",
        "?account_handle=acme",
        "?project_handle=app",
        "?account_handle=",
    ] {
        let answer = daemon.get(format!("/api/cache/cas/a{query}")).send().await;
        assert_eq!(answer.status, 403, "{query}");
        assert_eq!(answer.message(), "You don't have access to this project");
        let answer = daemon
            .get(format!("/api/cache/cas/a{query}"))
            .token("x")
            .send()
            .await;
        assert_eq!(answer.status, 401, "{query}");
    }
    for (query, name) in [
        ("account_handle=&project_handle=app", "account_handle"),
        ("account_handle=acme&project_handle=", "project_handle"),
    ] {
        let answer = daemon.get(format!("/api/cache/cas/a?{query}")).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.message()),
            (400, format!("Missing {name}"))
        );
    }
}

#[tokio::test]
async fn what_is_no_component_of_a_path_is_a_validation_error() {
    let daemon = Daemon::start().await;
    for bad in ["%2E", "%2e%2e", "..", "a%2Fb", "a%5Cb", "a%00"] {
        let object = daemon
            .get(format!("/api/cache/cas/{bad}?{PROJECT}"))
            .send()
            .await;
        assert_eq!(object.wrong(), ["/id"], "{bad}");
        let gradle = daemon
            .put(format!("/api/cache/gradle/{bad}?{PROJECT}"), "x")
            .send()
            .await;
        assert_eq!(gradle.wrong(), ["/cache_key"], "{bad}");
        let module =
            format!("/api/cache/module/x?{PROJECT}&hash={bad}&name={bad}&cache_category={bad}");
        let module = daemon.get(module).send().await;
        assert_eq!(
            module.wrong(),
            ["/hash", "/name", "/cache_category"],
            "{bad}"
        );
        let handle = format!("/api/cache/cas/a?account_handle={bad}&project_handle=app");
        assert_eq!(
            daemon.get(handle).send().await.wrong(),
            ["/account_handle"],
            "{bad}"
        );
    }
    // Authorization comes first.
    let answer = daemon
        .get(format!("/api/cache/cas/%2E?{PROJECT}"))
        .token("x")
        .send()
        .await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_parameter_twice_or_encoded_twice_is_refused() {
    let daemon = Daemon::start().await;
    for query in [
        "account_handle=acme&account_handle=acme&project_handle=app",
        "account_handle=acme&%61ccount_handle=other&project_handle=app",
        "account_handle=ac%256de&project_handle=app",
        "account_handle=acme&project_handle=app&x=%zz",
        "account_handle=acme&project_handle=%ff",
    ] {
        let answer = daemon.get(format!("/api/cache/cas/a?{query}")).send().await;
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[tokio::test]
async fn case_makes_no_other_project() {
    let daemon = Daemon::start().await;
    let other = "account_handle=ACME&project_handle=App";
    let put = daemon
        .post(format!("/api/cache/cas/a?{other}"), "one")
        .send()
        .await;
    assert_eq!(put.status, 204);
    let got = daemon
        .get(format!("/api/cache/cas/a?{PROJECT}"))
        .send()
        .await;
    assert_eq!(got.body, "one");
    // Ids keep theirs.
    assert_eq!(
        daemon
            .get(format!("/api/cache/cas/A?{PROJECT}"))
            .send()
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_id_of_a_request_comes_back() {
    let daemon = Daemon::start().await;
    let answer = daemon
        .get("/up")
        .header("x-request-id", "an-id")
        .send()
        .await;
    assert_eq!(answer.header("x-request-id"), "an-id");
    for bad in ["", "with space", &"x".repeat(201)] {
        let answer = daemon.get("/up").header("x-request-id", bad).send().await;
        let id = answer.header("x-request-id");
        assert!(id.len() >= 16 && id != bad, "{id}");
    }
}
