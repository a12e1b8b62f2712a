//! Too much at once: what each client bears best.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::BASE;
use crate::daemon::{Daemon, PROJECT, TOKEN, pattern, sha256};

/// A client that asks for a large object and does not read on.
async fn stall(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.http).await.unwrap();
    let head =
        format!("GET {BASE}/large HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // It was let in once the first byte is here.
    stream.read_u8().await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_finds_no_memory_is_answered_as_its_client_bears_it() {
    let daemon = Daemon::start_with(|settings| {
        settings.plain_networks = vec!["127.0.0.0/8".parse().unwrap()];
        // Room for one chunk and no more.
        settings.transport.budget = 256 * 1024;
    })
    .await;
    let bytes = pattern(100_000);
    let blob = format!("{BASE}/cas/{}", sha256(&bytes));
    let (gradle, hash) = (format!("{BASE}/{}", "0".repeat(32)), "1".repeat(64));
    let sccache = format!("{BASE}/1/1/1/{hash}");
    let tuist = format!("/api/cache/gradle/k?{PROJECT}");
    let cases = [
        (tuist, 429),
        (blob, 429),
        (gradle, 404),
        (sccache, 404),
        (format!("{BASE}/metro/k"), 404),
        (format!("{BASE}/rush/k"), 404),
        (format!("{BASE}/v1/cache/1"), 404),
        (format!("{BASE}/v8/artifacts/a"), 429),
        (format!("{BASE}/free/key"), 429),
    ];
    for (target, _) in &cases {
        let put = daemon.put(target, bytes.clone()).send().await;
        assert!(put.status.is_success(), "{target}: {put:?}");
        assert_eq!(daemon.get(target).send().await.body, bytes, "{target}");
    }
    daemon
        .put(format!("{BASE}/large"), vec![7; 64 << 20])
        .send()
        .await;
    let stalled = stall(&daemon).await;
    // Until the sockets are full, chunks come and go.
    let free = format!("{BASE}/free/key");
    while daemon.get(&free).send().await.status == 200 {}
    for (target, wanted) in &cases {
        let answer = daemon.get(target).send().await;
        assert_eq!(answer.status.as_u16(), *wanted, "{target}");
        let retry = answer.header("retry-after");
        assert_eq!(!retry.is_empty(), *wanted == 429, "{target}");
    }
    // Small answers still go out.
    daemon.put(format!("{BASE}/small"), "x").send().await;
    assert_eq!(daemon.get(format!("{BASE}/small")).send().await.body, "x");
    drop(stalled);
    while daemon.get(&free).send().await.status != 200 {}
}
