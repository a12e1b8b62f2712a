//! 1.10: health, metrics, and the description of the routes.

use serde_json::json;

use crate::daemon::{Daemon, PROJECT};

#[tokio::test]
async fn up_answers_anybody() {
    let daemon = Daemon::start().await;
    let answers = [
        daemon.get("/up").no_token().send().await,
        daemon.get("/up").no_token().send_h2().await,
        daemon.get("/up").no_token().plain().send().await,
    ];
    for answer in answers {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, "UP! Version: 1.2.3");
        assert!(answer.header("content-type").starts_with("text/plain"));
    }
}

#[tokio::test]
async fn metrics_are_for_loopback_only() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/metrics").send().await.status, 404);
    assert_eq!(daemon.get("/metrics").plain().send().await.status, 404);
    daemon
        .post(format!("/api/cache/cas/a?{PROJECT}"), "12345")
        .send()
        .await;
    daemon
        .get(format!("/api/cache/cas/a?{PROJECT}"))
        .send()
        .await;
    daemon
        .get(format!("/api/cache/cas/b?{PROJECT}"))
        .send()
        .await;
    assert_eq!(
        daemon
            .metric("tuist_cache_xcode_upload_success_total")
            .await,
        1.0
    );
    assert_eq!(daemon.metric("tuist_cache_xcode_upload_bytes").await, 5.0);
    assert_eq!(
        daemon
            .metric("tuist_cache_xcode_download_disk_hits_total")
            .await,
        1.0
    );
    assert_eq!(
        daemon
            .metric("tuist_cache_xcode_download_disk_misses_total")
            .await,
        1.0
    );
    assert_eq!(daemon.metric("tuist_cache_xcode_download_bytes").await, 5.0);
}

#[tokio::test]
async fn who_is_refused_is_counted_by_account_and_the_store_by_bytes() {
    let daemon = Daemon::start().await;
    let path = format!("/api/cache/cas/a?{PROJECT}");
    daemon.post(path.clone(), "12345").send().await;
    let account = |status: u16| {
        format!("larder_cache_account_responses_total{{account=\"acme\",status=\"{status}\"}}")
    };
    let base = "/cache/acme/app/free/b";
    for _ in 0..2 {
        assert_eq!(daemon.get(&path).no_token().send().await.status, 401);
        assert_eq!(daemon.get(base).no_token().send().await.status, 401);
    }
    assert_eq!(daemon.get(base).send().await.status, 404);
    // Counted when the client has it all, which may be a moment later.
    while daemon.metric(&account(401)).await < 4.0 || daemon.metric(&account(404)).await < 1.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(daemon.metric(&account(401)).await, 4.0);
    assert!(daemon.metric("larder_store_used_bytes").await >= 5.0);
    assert!(daemon.metric("larder_store_evictable_bytes").await >= 5.0);
    assert_eq!(daemon.metric("larder_store_stored_total").await, 1.0);
    assert_eq!(daemon.metric("larder_store_evicted_bytes_total").await, 0.0);
}

#[tokio::test]
async fn ready_says_why_not() {
    let daemon = Daemon::start().await;
    let answer = daemon.get("/ready").no_token().send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"ready": true, "reasons": []}))
    );
    let daemon = Daemon::start_with(|settings| settings.storage = "/nowhere".into()).await;
    let answer = daemon.get("/ready").no_token().send().await;
    assert_eq!(answer.status, 503);
    let reason = answer.json()["reasons"][0].as_str().unwrap().to_owned();
    assert!(reason.starts_with("the store cannot be used: "), "{reason}");
    // Which is no reason to be down.
    assert_eq!(daemon.get("/up").send().await.status, 200);
    assert_eq!(
        daemon
            .get(format!("/api/cache/cas/a?{PROJECT}"))
            .send()
            .await
            .status,
        404
    );
    let put = daemon
        .post(format!("/api/cache/cas/a?{PROJECT}"), "x")
        .send()
        .await;
    assert_eq!(
        (put.status.as_u16(), &*put.message()),
        (500, "Failed to persist artifact")
    );
}

#[tokio::test]
async fn the_description_is_openapi() {
    let daemon = Daemon::start().await;
    let answer = daemon.get("/api/spec").no_token().send().await;
    let json = answer.json();
    assert_eq!(json["openapi"], "3.0.0");
    assert!(json["paths"]["/api/cache/cas/{id}"]["post"].is_object());
}
