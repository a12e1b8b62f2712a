//! Nx: 200 and 404 on GET; 200, 403 and 409 on PUT; nothing else.

use super::BASE;
use crate::daemon::Daemon;

#[tokio::test]
async fn only_these_statuses() {
    let daemon = Daemon::start().await;
    let target = format!("{BASE}/v1/cache/12345");
    assert_eq!(daemon.get(&target).send().await.status, 404);
    assert_eq!(daemon.put(&target, "tar").send().await.status, 200);
    assert_eq!(daemon.put(&target, "tar").send().await.status, 409);
    assert_eq!(daemon.get(&target).send().await.body, "tar");
    // The same number elsewhere is another thing.
    assert_eq!(daemon.get(format!("{BASE}/12345")).send().await.status, 404);
}

#[tokio::test]
async fn a_bad_token_is_said_as_text() {
    let daemon = Daemon::start().await;
    for call in [
        daemon.get("/v1/cache/1"),
        daemon.get(format!("{BASE}/v1/cache/1")),
    ] {
        let answer = call.token("wrong").send().await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("content-type").starts_with("text/plain"));
    }
}

#[tokio::test]
async fn at_the_root_a_token_of_several_projects_finds_nothing() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/v1/cache/1").send().await.status, 404);
    assert_eq!(daemon.put("/v1/cache/1", "x").send().await.status, 403);
}

#[tokio::test]
async fn a_store_that_fails_fails_no_run() {
    let daemon = Daemon::start_with(|settings| settings.storage = "/nowhere".into()).await;
    let target = format!("{BASE}/v1/cache/1");
    assert_eq!(daemon.get(&target).send().await.status, 404);
    assert_eq!(daemon.put(&target, "x").send().await.status, 403);
    // Gradle does not switch its cache off.
    let gradle = format!("{BASE}/{}", "0".repeat(32));
    assert_eq!(daemon.get(&gradle).send().await.status, 404);
    assert_eq!(daemon.put(&gradle, "x").send().await.status, 413);
    assert_eq!(
        daemon.put(format!("{BASE}/k"), "x").send().await.status,
        507
    );
}
