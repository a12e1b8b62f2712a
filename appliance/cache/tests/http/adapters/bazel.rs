//! Bazel's two folders, which ccache and moon use as well.

use serde_json::json;

use super::BASE;
use crate::daemon::{Daemon, sha256};

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
}

/// An `ActionResult` with one output file.
fn result(hash: &str) -> Vec<u8> {
    let digest = [field(1, hash.as_bytes()), vec![0x10, 3]].concat();
    field(2, &[field(1, b"out"), field(2, &digest)].concat())
}

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[tokio::test]
async fn a_blob_is_what_its_name_says() {
    let daemon = Daemon::start().await;
    let target = format!("{BASE}/cas/{}", sha256("abc"));
    let wrong = daemon.put(&target, "abd").send().await;
    assert_eq!(wrong.status, 400);
    assert_eq!(daemon.get(&target).send().await.status, 404);
    assert_eq!(
        daemon.put(&target, "abc").chunked().send().await.status,
        201
    );
    assert_eq!(daemon.put(&target, "abc").send().await.status, 200);
    let got = daemon.get(&target).send().await;
    assert_eq!(got.body, "abc");
    // What was computed here is no digest of Tuist's.
    assert_eq!(got.header("tuist-checksum-sha256"), "");
    let head = daemon.call("HEAD", &target).send().await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, "3")
    );
    let upper = format!("{BASE}/cas/{}", sha256("abc").to_uppercase());
    assert_eq!(daemon.get(upper).send().await.status, 200);
}

#[tokio::test]
async fn accounts_share_no_blobs() {
    let daemon = Daemon::start().await;
    let hash = sha256("abc");
    daemon.put(format!("{BASE}/cas/{hash}"), "abc").send().await;
    for base in ["/cache/other/app", "/cache/acme/other"] {
        assert_eq!(
            daemon.get(format!("{base}/cas/{hash}")).send().await.status,
            404
        );
    }
    // Nor do folders.
    assert_eq!(
        daemon.get(format!("{BASE}/ac/{hash}")).send().await.status,
        404
    );
    let xcode = format!("/api/cache/cas/{hash}?account_handle=acme&project_handle=app");
    assert_eq!(daemon.get(xcode).send().await.status, 404);
}

#[tokio::test]
async fn a_result_is_served_while_its_blobs_are_there() {
    let daemon = Daemon::start().await;
    let action = format!("{BASE}/ac/{}", hash('1'));
    let blob = sha256("abc");
    let result = result(&blob);
    assert_eq!(daemon.put(&action, result.clone()).send().await.status, 201);
    assert_eq!(daemon.get(&action).send().await.status, 404);
    daemon.put(format!("{BASE}/cas/{blob}"), "abc").send().await;
    // It was dropped, and is put again.
    assert_eq!(daemon.get(&action).send().await.status, 404);
    assert_eq!(daemon.put(&action, result.clone()).send().await.status, 201);
    let got = daemon.get(&action).send().await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &result[..]));
    let head = daemon.call("HEAD", &action).send().await;
    assert_eq!(head.header("content-length"), result.len().to_string());
}

#[tokio::test]
async fn the_empty_blob_is_always_there() {
    let daemon = Daemon::start().await;
    let action = format!("{BASE}/ac/{}", hash('1'));
    let empty = sha256("");
    daemon.put(&action, result(&empty)).send().await;
    assert_eq!(daemon.get(&action).send().await.status, 200);
    let got = daemon.get(format!("{BASE}/cas/{empty}")).send().await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, 0));
}

#[tokio::test]
async fn a_tree_is_looked_into() {
    let daemon = Daemon::start().await;
    let file = sha256("file");
    let digest = |hash: &str| [field(1, hash.as_bytes()), vec![0x10, 4]].concat();
    let node = field(1, &[field(1, b"f"), field(2, &digest(&file))].concat());
    let tree = field(1, &node);
    let name = sha256(&tree);
    let directory = field(3, &[field(1, b"dir"), field(3, &digest(&name))].concat());
    daemon.put(format!("{BASE}/cas/{name}"), tree).send().await;
    let action = format!("{BASE}/ac/{}", hash('1'));
    daemon.put(&action, directory.clone()).send().await;
    assert_eq!(daemon.get(&action).send().await.status, 404);
    daemon
        .put(format!("{BASE}/cas/{file}"), "file")
        .send()
        .await;
    daemon.put(&action, directory).send().await;
    assert_eq!(daemon.get(&action).send().await.status, 200);
}

#[tokio::test]
async fn moons_json_is_looked_into() {
    let daemon = Daemon::start().await;
    let action = format!("{BASE}/ac/{}", hash('1'));
    let blob = sha256("abc");
    let digest = json!({"hash": blob, "sizeBytes": 3});
    let body = json!({"outputFiles": [{"path": "a", "digest": digest}], "exitCode": 0});
    let put = || daemon.call("PUT", &action).json(&body);
    assert_eq!(put().send().await.status, 201);
    assert_eq!(daemon.get(&action).send().await.status, 404);
    daemon.put(format!("{BASE}/cas/{blob}"), "abc").send().await;
    put().send().await;
    assert_eq!(daemon.get(&action).send().await.body, body.to_string());
    assert_eq!(daemon.get("/status").no_token().send().await.status, 200);
}

#[tokio::test]
async fn what_does_not_parse_passes_and_is_overwritten() {
    let daemon = Daemon::start().await;
    let action = format!("{BASE}/ac/{}", hash('2'));
    let large = vec![0xff; 3 << 20];
    for body in [b"cc ac\x00one".to_vec(), b"cc ac\x00two".to_vec(), large] {
        assert_eq!(daemon.put(&action, body.clone()).send().await.status, 201);
        assert_eq!(daemon.get(&action).send().await.body, body);
    }
}
