//! 1.5: `tuist-checksum-sha256`.

use crate::daemon::{Daemon, PROJECT, sha256};

const HEADER: &str = "tuist-checksum-sha256";

fn object(id: &str) -> String {
    format!("/api/cache/cas/{id}?{PROJECT}")
}

#[tokio::test]
async fn a_declared_digest_comes_back_in_lower_case() {
    let daemon = Daemon::start().await;
    let digest = sha256("bytes");
    let call = daemon
        .post(object("a"), "bytes")
        .header(HEADER, &digest.to_uppercase());
    assert_eq!(call.send().await.status, 204);
    let whole = daemon.get(object("a")).send().await;
    assert_eq!(whole.header(HEADER), digest);
    let part = daemon
        .get(object("a"))
        .header("range", "bytes=1-")
        .send()
        .await;
    assert_eq!((part.status.as_u16(), part.header(HEADER)), (206, &*digest));
}

#[tokio::test]
async fn one_that_was_not_declared_is_never_served() {
    let daemon = Daemon::start().await;
    daemon.post(object("a"), "bytes").send().await;
    assert_eq!(daemon.get(object("a")).send().await.header(HEADER), "");
}

#[tokio::test]
async fn another_digest_publishes_nothing() {
    let daemon = Daemon::start().await;
    let (declared, received) = (sha256("other"), sha256("bytes"));
    for target in [object("a"), format!("/api/cache/gradle/a?{PROJECT}")] {
        let method = if target.contains("gradle") {
            "PUT"
        } else {
            "POST"
        };
        let call = daemon
            .call(method, target.clone())
            .bytes("bytes")
            .header(HEADER, &declared);
        let answer = call.send().await;
        assert_eq!(answer.status, 422);
        assert_eq!(
            answer.message(),
            format!("Body does not match {HEADER}: declared {declared}, received {received}")
        );
        assert_eq!(daemon.get(target).send().await.status, 404);
    }
}

#[tokio::test]
async fn what_is_no_digest_is_refused() {
    let daemon = Daemon::start().await;
    for bad in ["", "abc", &"g".repeat(64), &"0".repeat(65)] {
        let answer = daemon
            .post(object("a"), "bytes")
            .header(HEADER, bad)
            .send()
            .await;
        assert_eq!(answer.status, 400, "{bad}");
        assert_eq!(
            answer.message(),
            format!("{HEADER} must be 64 hex characters")
        );
    }
}
