//! Clients with free keys: ccache, Gradle, Metro, Rush, helpers of Go, curl.

use super::BASE;
use crate::daemon::{Daemon, TOKEN, pattern};

#[tokio::test]
async fn the_first_writer_of_a_free_key_wins() {
    let daemon = Daemon::start().await;
    for key in [
        "k",
        "go/0a0b",
        "metro/ff",
        "rush/some-package-123",
        "deep/er/key.txt",
        &"a".repeat(32),
    ] {
        let target = format!("{BASE}/{key}");
        assert_eq!(daemon.get(&target).send().await.status, 404, "{key}");
        assert_eq!(daemon.put(&target, "one").send().await.status, 201, "{key}");
        assert_eq!(daemon.put(&target, "two").send().await.status, 200, "{key}");
        assert_eq!(daemon.get(&target).send().await.body, "one", "{key}");
        let head = daemon.call("HEAD", &target).send().await;
        assert_eq!(
            (head.status.as_u16(), head.header("content-length")),
            (200, "3")
        );
        assert_eq!(
            daemon.call("DELETE", &target).send().await.status,
            405,
            "{key}"
        );
    }
}

#[tokio::test]
async fn ccache_overwrites_in_all_its_layouts() {
    let daemon = Daemon::start().await;
    let key = "0123456789abcdef0123456789abcdef01234567";
    let bazel = format!("ac/{key}{}", &key[..24]);
    for path in [key.into(), format!("{}/{}", &key[..2], &key[2..]), bazel] {
        let target = format!("{BASE}/{path}");
        for body in ["one", "longer"] {
            let call = daemon
                .put(&target, body)
                .header("user-agent", "ccache/4.11.2");
            assert_eq!(call.send().await.status, 201, "{path}");
            let call = daemon.get(&target).header("user-agent", "ccache/4.11.2");
            assert_eq!(call.send().await.body, body, "{path}");
        }
    }
    let target = format!("{BASE}/{key}");
    let remove = || {
        daemon
            .call("DELETE", &target)
            .header("user-agent", "ccache/4.11.2")
    };
    assert_eq!(remove().send().await.status, 204);
    assert_eq!(remove().send().await.status, 404);
}

#[tokio::test]
async fn bodies_without_a_length_are_taken() {
    let daemon = Daemon::start().await;
    let bytes = pattern(300_000);
    let target = format!("{BASE}/metro/00ff");
    assert_eq!(
        daemon
            .put(&target, bytes.clone())
            .chunked()
            .send()
            .await
            .status,
        201
    );
    assert_eq!(daemon.get(&target).send().await.body, bytes);
}

#[tokio::test]
async fn the_token_is_a_bearer_or_a_password() {
    use base64::Engine;
    let daemon = Daemon::start().await;
    let target = format!("{BASE}/k");
    daemon.put(&target, "x").send().await;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("anybody:{TOKEN}"));
    let basic = format!("Basic {pair}");
    let answer = daemon
        .get(&target)
        .header("authorization", &basic)
        .send()
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(daemon.get(&target).no_token().send().await.status, 401);
    assert_eq!(daemon.get(&target).token("wrong").send().await.status, 401);
}

#[tokio::test]
async fn gradles_entries_are_apart_from_tuists() {
    let daemon = Daemon::start().await;
    let key = "0".repeat(32);
    daemon.put(format!("{BASE}/{key}"), "x").send().await;
    let tuist = format!("/api/cache/gradle/{key}?account_handle=acme&project_handle=app");
    assert_eq!(daemon.get(tuist).send().await.status, 404);
}

#[tokio::test]
async fn paths_have_one_spelling() {
    let daemon = Daemon::start().await;
    for path in [
        "a//b",
        "a/./b",
        "a/../b",
        "a/%2e%2e/b",
        "a%2Fb",
        "a%5Cb",
        "a%00b",
        "a%252e",
        "%zz",
    ] {
        let answer = daemon.put(format!("{BASE}/{path}"), "x").send().await;
        assert_eq!(answer.status, 400, "{path}");
    }
    for base in [
        "/cache/../app",
        "/cache/acme/..",
        "/cache/%2e/app",
        "/cache/ac%2Fme/app",
        "/cache/a%256d/app",
    ] {
        let answer = daemon.get(format!("{base}/k")).send().await;
        assert_eq!(answer.status, 400, "{base}");
    }
    daemon.put(format!("{BASE}/a%20b"), "x").send().await;
    assert_eq!(daemon.get("/cache/ACME/App/a%20b").send().await.body, "x");
    let long = "k".repeat(4200);
    assert_eq!(
        daemon
            .put(format!("{BASE}/{long}"), "x")
            .send()
            .await
            .status,
        400
    );
}
