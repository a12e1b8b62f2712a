//! 1.3: entries of the Xcode action cache.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::daemon::{Daemon, PROJECT};

const PUT: &str = "/api/cache/keyvalue?account_handle=acme&project_handle=app";

fn get(id: &str) -> String {
    format!("/api/cache/keyvalue/{id}?{PROJECT}")
}

/// A value that names objects as Xcode's do.
fn naming(ids: &[&str]) -> String {
    let mut bytes = vec![0x0a, 0x03, b'x', 0x12, 0x00];
    for id in ids {
        bytes.extend([0x12, 0x40]);
        bytes.extend(id.bytes());
    }
    STANDARD.encode(bytes)
}

async fn put(daemon: &Daemon, id: &str, values: &[&str]) {
    let entries: Vec<_> = values.iter().map(|value| json!({"value": value})).collect();
    let body = json!({"cas_id": id, "entries": entries});
    let answer = daemon.call("PUT", PUT).json(&body).send().await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (204, &b""[..]));
}

#[tokio::test]
async fn an_entry_comes_back_byte_for_byte() {
    let daemon = Daemon::start().await;
    put(&daemon, "0~YQ==", &["one", "", "\u{e9}\"\\"]).await;
    for id in ["0~YQ==", "0~YQ%3D%3D"] {
        let answer = daemon.get(get(id)).send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        let wanted =
            "{\"entries\":[{\"value\":\"one\"},{\"value\":\"\"},{\"value\":\"\u{e9}\\\"\\\\\"}]}";
        assert_eq!(answer.body, wanted.as_bytes());
        assert_eq!(answer.body, daemon.get(get(id)).send_h2().await.body);
    }
}

#[tokio::test]
async fn the_last_list_is_right() {
    let daemon = Daemon::start().await;
    put(&daemon, "a", &["one", "two"]).await;
    put(&daemon, "a", &["three"]).await;
    let answer = daemon.get(get("a")).send().await;
    assert_eq!(answer.json(), json!({"entries": [{"value": "three"}]}));
    put(&daemon, "a", &[]).await;
    assert_eq!(
        daemon.get(get("a")).send().await.json(),
        json!({"entries": []})
    );
}

#[tokio::test]
async fn a_miss_names_the_id() {
    let daemon = Daemon::start().await;
    let answer = daemon.get(get("0~x%3D")).send().await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.message(), "No entries found for CAS ID 0~x=.");
}

#[tokio::test]
async fn bodies_are_validated() {
    let daemon = Daemon::start().await;
    for (body, wrong) in [
        (json!({"entries": []}), "/cas_id"),
        (json!({"cas_id": "a"}), "/entries"),
        (json!({"cas_id": 1, "entries": []}), "/cas_id"),
        (json!({"cas_id": "a", "entries": [{}]}), "/entries/value"),
        (
            json!({"cas_id": "a", "entries": [{"value": 1}]}),
            "/entries/value",
        ),
    ] {
        assert_eq!(
            daemon.call("PUT", PUT).json(&body).send().await.wrong(),
            [wrong]
        );
    }
    let deep = format!(
        "{{\"cas_id\":\"a\",\"entries\":{}{}}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    for bad in ["", "{", &deep] {
        let call = daemon
            .call("PUT", PUT)
            .header("content-type", "application/json");
        assert_eq!(call.body(bad.to_owned()).send().await.status, 400, "{bad}");
    }
    assert_eq!(
        daemon.put(PUT, "{}").send().await.wrong(),
        ["/content-type"]
    );
    let text = json!({"cas_id": "a", "entries": [{"value": "x".repeat(1 << 20)}]});
    assert_eq!(daemon.call("PUT", PUT).json(&text).send().await.status, 413);
    assert_eq!(
        daemon
            .call("PUT", PUT)
            .json(&text)
            .chunked()
            .send()
            .await
            .status,
        413
    );
    assert_eq!(daemon.get(get("a")).send().await.status, 404);
}

#[tokio::test]
async fn an_entry_whose_objects_are_there_is_served() {
    let daemon = Daemon::start().await;
    let (a, b) = ("0A".repeat(32), "0B".repeat(32));
    for id in [&a, &b] {
        daemon
            .post(format!("/api/cache/cas/{id}?{PROJECT}"), "x")
            .send()
            .await;
    }
    put(&daemon, "k", &[&naming(&[&a]), &naming(&[&b, &a])]).await;
    assert_eq!(daemon.get(get("k")).send().await.status, 200);
}

#[tokio::test]
async fn an_entry_whose_object_is_gone_is_a_miss_and_dropped() {
    let daemon = Daemon::start().await;
    let (a, b) = ("0A".repeat(32), "0B".repeat(32));
    daemon
        .post(format!("/api/cache/cas/{a}?{PROJECT}"), "x")
        .send()
        .await;
    put(&daemon, "k", &[&naming(&[&a, &b])]).await;
    assert_eq!(daemon.get(get("k")).send().await.status, 404);
    // Dropped: it is not there either once the object is.
    daemon
        .post(format!("/api/cache/cas/{b}?{PROJECT}"), "x")
        .send()
        .await;
    assert_eq!(daemon.get(get("k")).send().await.status, 404);
    put(&daemon, "k", &[&naming(&[&a, &b])]).await;
    assert_eq!(daemon.get(get("k")).send().await.status, 200);
    // Objects of another project do not count.
    let other = "account_handle=acme&project_handle=other";
    let body = json!({"cas_id": "k", "entries": [{"value": naming(&[&a])}]});
    let target = format!("/api/cache/keyvalue?{other}");
    daemon.call("PUT", target).json(&body).send().await;
    let answer = daemon
        .get(format!("/api/cache/keyvalue/k?{other}"))
        .send()
        .await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn values_of_unknown_shapes_pass_and_are_counted() {
    let daemon = Daemon::start().await;
    let short = STANDARD.encode(b"\x12\x40abc");
    put(
        &daemon,
        "k",
        &["no base64 !", &short, "", &naming(&[&"z".repeat(64)])],
    )
    .await;
    assert_eq!(daemon.get(get("k")).send().await.status, 200);
    assert_eq!(
        daemon.metric("larder_cache_kv_unknown_values_total").await,
        4.0
    );
}
