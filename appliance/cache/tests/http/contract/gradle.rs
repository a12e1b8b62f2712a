//! 1.7: entries of Gradle's build cache.

use crate::daemon::{Daemon, PROJECT, sha256};

fn entry(key: &str) -> String {
    format!("/api/cache/gradle/{key}?{PROJECT}")
}

#[tokio::test]
async fn new_is_201_and_known_is_200() {
    let daemon = Daemon::start().await;
    let digest = sha256("one");
    let call = || {
        daemon
            .put(entry("k"), "one")
            .header("tuist-checksum-sha256", &digest)
    };
    assert_eq!(call().send().await.status, 201);
    assert_eq!(call().send().await.status, 200);
    let got = daemon.get(entry("k")).send().await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &b"one"[..]));
    assert_eq!(got.header("content-type"), "application/octet-stream");
    assert_eq!(got.header("tuist-checksum-sha256"), digest);
}

#[tokio::test]
async fn a_miss_is_empty() {
    let daemon = Daemon::start().await;
    let answer = daemon.get(entry("k")).send().await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (404, 0));
}

#[tokio::test]
async fn the_length_must_be_declared() {
    let daemon = Daemon::start().await;
    let answer = daemon.put(entry("k"), "one").chunked().send().await;
    assert_eq!(answer.wrong(), ["/content-length"]);
    assert_eq!(daemon.get(entry("k")).send().await.status, 404);
}

#[tokio::test]
async fn entries_are_at_most_100_mib() {
    let daemon = Daemon::start().await;
    let answer = daemon
        .put(entry("k"), vec![0; (100 << 20) + 1])
        .send_h2()
        .await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.message(), "Request body exceeded allowed size");
}
