//! Turborepo.

use serde_json::json;

use super::BASE;
use crate::daemon::Daemon;

fn artifact(hash: &str) -> String {
    format!("{BASE}/v8/artifacts/{hash}?slug=acme")
}

#[tokio::test]
async fn artifacts_keep_tag_and_duration() {
    let daemon = Daemon::start().await;
    let put = daemon
        .put(artifact("a"), "tar")
        .header("x-artifact-duration", "1234")
        .header("x-artifact-tag", "dGFn");
    let answer = put.send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (202, json!({"urls": []}))
    );
    let got = daemon.get(artifact("a")).send().await;
    assert_eq!(got.body, "tar");
    assert_eq!(got.header("x-artifact-duration"), "1234");
    assert_eq!(got.header("x-artifact-tag"), "dGFn");
    let head = daemon.call("HEAD", artifact("a")).send().await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, "3")
    );
    assert_eq!(daemon.get(artifact("b")).send().await.status, 404);
}

#[tokio::test]
async fn a_tagged_artifact_replaces_an_untagged_one_and_no_other() {
    let daemon = Daemon::start().await;
    let put = |bytes: &'static str, tag: Option<&str>| {
        let call = daemon
            .put(artifact("a"), bytes)
            .header("x-artifact-duration", "1");
        match tag {
            Some(tag) => call.header("x-artifact-tag", tag),
            None => call,
        }
    };
    let steps = [
        ("one", None, "one"),
        ("two", None, "one"),
        ("three", Some("t"), "three"),
        ("four", Some("u"), "three"),
        ("five", None, "three"),
    ];
    for (bytes, tag, wanted) in steps {
        assert_eq!(put(bytes, tag).send().await.status, 202);
        assert_eq!(daemon.get(artifact("a")).send().await.body, wanted);
    }
}

#[tokio::test]
async fn unsigned_artifacts_can_be_refused() {
    let daemon = Daemon::start_with(|settings| settings.signed_only = true).await;
    assert_eq!(daemon.put(artifact("a"), "x").send().await.status, 403);
    let signed = daemon.put(artifact("a"), "x").header("x-artifact-tag", "t");
    assert_eq!(signed.send().await.status, 202);
    let long = daemon
        .put(artifact("b"), "x")
        .header("x-artifact-tag", &"t".repeat(601));
    assert_eq!(long.send().await.status, 400);
}

#[tokio::test]
async fn status_events_and_questions() {
    let daemon = Daemon::start().await;
    let status = daemon
        .get(format!("{BASE}/v8/artifacts/status"))
        .send()
        .await;
    assert_eq!(
        (status.status.as_u16(), status.json()),
        (200, json!({"status": "enabled"}))
    );
    let events = json!([{"sessionId": "s", "source": "REMOTE", "event": "HIT", "hash": "a"}]);
    let target = format!("{BASE}/v8/artifacts/events");
    assert_eq!(
        daemon
            .call("POST", target)
            .json(&events)
            .send()
            .await
            .status,
        200
    );
    daemon
        .put(artifact("a"), "tar")
        .header("x-artifact-duration", "7")
        .send()
        .await;
    let target = format!("{BASE}/v8/artifacts");
    let call = daemon
        .call("POST", &target)
        .json(&json!({"hashes": ["a", "b"]}));
    let wanted = json!({"a": {"size": 3, "taskDurationMs": 7, "tag": null}, "b": null});
    assert_eq!(call.send().await.json(), wanted);
    assert_eq!(
        daemon
            .call("POST", target)
            .json(&json!([]))
            .send()
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn the_preflight_lets_the_token_pass() {
    let daemon = Daemon::start().await;
    for target in [artifact("a"), "/v8/artifacts/a".into()] {
        let call = daemon.call("OPTIONS", target).no_token();
        let asked = "Authorization, User-Agent, X-Artifact-Tag";
        let answer = call
            .header("access-control-request-headers", asked)
            .send()
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-headers"), asked);
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("PUT")
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn at_the_root_a_token_of_several_projects_finds_nothing() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/v8/artifacts/a").send().await.status, 404);
    assert_eq!(
        daemon
            .get("/v8/artifacts/a")
            .token("wrong")
            .send()
            .await
            .status,
        401
    );
}
