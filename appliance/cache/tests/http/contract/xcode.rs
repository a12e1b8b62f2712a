//! 1.4: objects of the Xcode compilation cache.

use crate::daemon::{Daemon, PROJECT, pattern};

fn object(id: &str) -> String {
    format!("/api/cache/cas/{id}?{PROJECT}")
}

#[tokio::test]
async fn what_is_posted_is_got_with_explicit_types() {
    let daemon = Daemon::start().await;
    let bytes = pattern(200_000);
    let put = daemon.post(object("a"), bytes.clone()).send().await;
    assert_eq!((put.status.as_u16(), put.body.len()), (204, 0));
    for got in [
        daemon.get(object("a")).send().await,
        daemon.get(object("a")).send_h2().await,
    ] {
        assert_eq!(got.status, 200);
        assert_eq!(got.body, bytes);
        assert_eq!(got.header("content-type"), "application/octet-stream");
        assert_eq!(got.header("accept-ranges"), "bytes");
        assert_eq!(got.header("content-length"), "200000");
    }
    let missing = daemon.get(object("b.zip")).send().await;
    assert_eq!(
        (missing.status.as_u16(), &*missing.message()),
        (404, "Not found")
    );
}

#[tokio::test]
async fn the_first_writer_wins_and_the_second_is_told_the_same() {
    let daemon = Daemon::start().await;
    for bytes in ["first", "second"] {
        assert_eq!(daemon.post(object("a"), bytes).send().await.status, 204);
    }
    assert_eq!(daemon.get(object("a")).send().await.body, "first");
    // Also with a digest that is not checked any more.
    let call = daemon
        .post(object("a"), "third")
        .header("tuist-checksum-sha256", &"0".repeat(64));
    assert_eq!(call.send().await.status, 204);
}

#[tokio::test]
async fn bodies_are_at_most_25_mib() {
    let daemon = Daemon::start().await;
    let bytes = vec![7; (25 << 20) + 1];
    for call in [
        daemon.post(object("a"), bytes.clone()),
        daemon.post(object("a"), bytes.clone()).chunked(),
    ] {
        let answer = call.send_h2().await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.message(), "Request body exceeded allowed size");
    }
    assert_eq!(daemon.get(object("a")).send().await.status, 404);
    let most = bytes[1..].to_vec();
    assert_eq!(daemon.post(object("a"), most).send().await.status, 204);
}

#[tokio::test]
async fn another_type_is_a_validation_error() {
    let daemon = Daemon::start().await;
    let call = daemon
        .call("POST", object("a"))
        .header("content-type", "application/zip");
    assert_eq!(call.body("x").send().await.wrong(), ["/content-type"]);
}

#[tokio::test]
async fn ranges_continue_what_broke_off() {
    let daemon = Daemon::start().await;
    let bytes = pattern(100_000);
    daemon.post(object("a"), bytes.clone()).send().await;
    let etag = daemon
        .get(object("a"))
        .send()
        .await
        .header("etag")
        .to_owned();
    assert!(etag.starts_with('"') && etag.len() > 10, "{etag}");
    for condition in [None, Some(&*etag)] {
        let mut call = daemon.get(object("a")).header("range", "bytes=70000-");
        if let Some(etag) = condition {
            call = call.header("if-range", etag);
        }
        let part = call.send().await;
        assert_eq!(part.status, 206);
        assert_eq!(part.body, bytes[70_000..]);
        assert_eq!(part.header("content-range"), "bytes 70000-99999/100000");
        assert_eq!(part.header("etag"), etag);
        assert_eq!(part.header("content-type"), "application/octet-stream");
    }
    // Other bytes than those that were begun with.
    let call = daemon
        .get(object("a"))
        .header("range", "bytes=70000-")
        .header("if-range", "\"x\"");
    let whole = call.send().await;
    assert_eq!((whole.status.as_u16(), whole.body.len()), (200, 100_000));
    let beyond = daemon
        .get(object("a"))
        .header("range", "bytes=100000-")
        .send()
        .await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), "bytes */100000");
}

#[tokio::test]
async fn the_etag_is_of_the_content_and_survives_a_restart() {
    let daemon = Daemon::start().await;
    for (id, bytes) in [("a", "one"), ("b", "one"), ("c", "two")] {
        daemon.post(object(id), bytes).send().await;
    }
    let mut before = Vec::new();
    for id in ["a", "b", "c"] {
        before.push(
            daemon
                .get(object(id))
                .send()
                .await
                .header("etag")
                .to_owned(),
        );
    }
    assert_eq!(before[0], before[1]);
    assert_ne!(before[0], before[2]);
    let daemon = daemon.restart().await;
    for (id, before) in ["a", "b", "c"].iter().zip(before) {
        assert_eq!(daemon.get(object(id)).send().await.header("etag"), before);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_stores_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let daemon = Daemon::start_with(|settings| {
        settings.plain_networks = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    // Through an adapter, because only they come without TLS; the store is the same.
    let mut stream = tokio::net::TcpStream::connect(daemon.http).await.unwrap();
    let head = "PUT /cache/acme/app/k HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right-token\r\n\
                content-length: 10\r\n\r\nfive!";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        !answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(daemon.get("/cache/acme/app/k").send().await.status, 404);
}
