//! 1.8: clean.

use serde_json::json;

use crate::daemon::{Daemon, PROJECT};

#[tokio::test]
async fn everything_of_the_project_goes_and_nothing_else() {
    let daemon = Daemon::start().await;
    let other = "account_handle=acme&project_handle=other";
    for query in [PROJECT, other] {
        daemon
            .post(format!("/api/cache/cas/a?{query}"), "x")
            .send()
            .await;
        daemon
            .put(format!("/api/cache/gradle/a?{query}"), "x")
            .send()
            .await;
        let body = json!({"cas_id": "a", "entries": []});
        let target = format!("/api/cache/keyvalue?{query}");
        daemon.call("PUT", target).json(&body).send().await;
    }
    daemon.put("/cache/acme/app/free", "x").send().await;
    let answer = daemon
        .call("DELETE", format!("/api/cache/clean?{PROJECT}"))
        .send()
        .await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    let gone = |query: &str| {
        ["cas/a", "gradle/a", "keyvalue/a"].map(|path| format!("/api/cache/{path}?{query}"))
    };
    for target in gone(PROJECT) {
        assert_eq!(daemon.get(&target).send().await.status, 404, "{target}");
    }
    assert_eq!(daemon.get("/cache/acme/app/free").send().await.status, 404);
    for target in gone(other) {
        assert_eq!(daemon.get(&target).send().await.status, 200, "{target}");
    }
    // Also after a restart, and what comes later stays.
    let daemon = daemon.restart().await;
    assert_eq!(
        daemon
            .get(format!("/api/cache/cas/a?{PROJECT}"))
            .send()
            .await
            .status,
        404
    );
    daemon
        .post(format!("/api/cache/cas/a?{PROJECT}"), "y")
        .send()
        .await;
    assert_eq!(
        daemon
            .get(format!("/api/cache/cas/a?{PROJECT}"))
            .send()
            .await
            .body,
        "y"
    );
}

#[tokio::test]
async fn an_upload_that_began_before_does_not_land() {
    let daemon = Daemon::start().await;
    let query = format!("{PROJECT}&hash=h&name=n");
    let start = daemon
        .call("POST", format!("/api/cache/module/start?{query}"))
        .send()
        .await;
    let id = start.json()["upload_id"].as_str().unwrap().to_owned();
    let with = format!("{query}&upload_id={id}");
    let target = format!("/api/cache/module/part?{with}&part_number=1");
    assert_eq!(daemon.post(target, "x").send().await.status, 204);
    daemon
        .call("DELETE", format!("/api/cache/clean?{PROJECT}"))
        .send()
        .await;
    let target = format!("/api/cache/module/complete?{with}");
    let answer = daemon
        .call("POST", target)
        .json(&json!({"parts": [1]}))
        .send()
        .await;
    assert_eq!(answer.status, 404);
    let head = daemon
        .call("HEAD", format!("/api/cache/module/x?{query}"))
        .send()
        .await;
    assert_eq!(head.status, 404);
}
