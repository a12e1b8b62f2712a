//! 1.6: artifacts of modules.

use serde_json::json;

use crate::daemon::{Answer, Daemon, PROJECT, pattern, sha256};

fn query(hash: &str) -> String {
    format!("{PROJECT}&hash={hash}&name=Name.xcframework.zip")
}

async fn start(daemon: &Daemon, hash: &str) -> String {
    let target = format!("/api/cache/module/start?{}", query(hash));
    let answer = daemon.call("POST", target).send().await;
    assert_eq!(answer.status, 200);
    answer.json()["upload_id"].as_str().unwrap().to_owned()
}

async fn part(daemon: &Daemon, hash: &str, id: &str, number: &str, bytes: Vec<u8>) -> Answer {
    let query = query(hash);
    let target = format!("/api/cache/module/part?{query}&upload_id={id}&part_number={number}");
    daemon.post(target, bytes).send().await
}

async fn complete(daemon: &Daemon, hash: &str, id: &str, body: serde_json::Value) -> Answer {
    let target = format!("/api/cache/module/complete?{}&upload_id={id}", query(hash));
    daemon.call("POST", target).json(&body).send().await
}

fn artifact(hash: &str) -> String {
    format!("/api/cache/module/anything?{}", query(hash))
}

#[tokio::test]
async fn parts_become_an_artifact() {
    let daemon = Daemon::start().await;
    let bytes = pattern((21 << 20) + 5);
    let id = start(&daemon, "a").await;
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    assert_eq!(daemon.call("HEAD", artifact("a")).send().await.status, 404);
    for (number, piece) in bytes.chunks(10 << 20).enumerate() {
        let answer = part(&daemon, "a", &id, &(number + 1).to_string(), piece.to_vec()).await;
        assert_eq!(answer.status, 204);
    }
    let digest = sha256(&bytes);
    let body = json!({"parts": ["1", 2, 3, 3], "checksum_sha256": digest});
    assert_eq!(complete(&daemon, "a", &id, body).await.status, 204);
    let head = daemon.call("HEAD", artifact("a")).send().await;
    assert_eq!((head.status.as_u16(), head.body.len()), (204, 0));
    let got = daemon.get(artifact("a")).send().await;
    assert_eq!(got.body, bytes);
    assert_eq!(got.header("content-type"), "application/octet-stream");
    assert_eq!(got.header("tuist-checksum-sha256"), digest);
    let rest = daemon
        .get(artifact("a"))
        .header("range", "bytes=20000000-")
        .send()
        .await;
    assert_eq!(
        (rest.status.as_u16(), rest.body.len()),
        (206, bytes.len() - 20_000_000)
    );
    // The session is over, and another one is not needed.
    assert_eq!(part(&daemon, "a", &id, "4", vec![1]).await.status, 404);
    let again = daemon
        .call("POST", format!("/api/cache/module/start?{}", query("a")))
        .send()
        .await;
    assert_eq!(again.json(), json!({"upload_id": null}));
}

#[tokio::test]
async fn parts_come_in_any_order_and_one_that_waits_is_replaced() {
    let daemon = Daemon::start().await;
    let id = start(&daemon, "a").await;
    for (number, bytes, status) in [
        ("3", "ghi", 204),
        ("2", "xxx", 204),
        ("2", "def", 204),
        ("1", "abc", 204),
        ("1", "xxx", 409),
    ] {
        let answer = part(&daemon, "a", &id, number, bytes.into()).await;
        assert_eq!(answer.status, status, "{number} {bytes}");
        if status == 409 {
            assert_eq!(
                answer.message(),
                "Part was already written and cannot be replaced"
            );
        }
    }
    assert_eq!(
        complete(&daemon, "a", &id, json!({"parts": [3, 1, 2]}))
            .await
            .status,
        204
    );
    assert_eq!(daemon.get(artifact("a")).send().await.body, "abcdefghi");
}

#[tokio::test]
async fn a_failed_completion_ends_the_session() {
    let daemon = Daemon::start().await;
    let received = sha256("abc");
    let other = sha256("other");
    for (body, status, text) in [
        (
            json!({"parts": [1, 2]}),
            400,
            "Parts mismatch or missing parts".to_owned(),
        ),
        (
            json!({"parts": []}),
            400,
            "Parts mismatch or missing parts".to_owned(),
        ),
        (
            json!({"parts": [1], "checksum_sha256": "x"}),
            400,
            "checksum_sha256 must be 64 hex characters".to_owned(),
        ),
        (
            json!({"parts": [1], "checksum_sha256": other}),
            422,
            format!(
                "Assembled artifact does not match checksum_sha256: declared {other}, assembled {received}"
            ),
        ),
    ] {
        let id = start(&daemon, "a").await;
        part(&daemon, "a", &id, "1", "abc".into()).await;
        let answer = complete(&daemon, "a", &id, body).await;
        assert_eq!((answer.status.as_u16(), answer.message()), (status, text));
        let again = complete(&daemon, "a", &id, json!({"parts": [1]})).await;
        assert_eq!(again.status, 404);
        assert_eq!(daemon.get(artifact("a")).send().await.status, 404);
    }
}

#[tokio::test]
async fn a_body_that_does_not_validate_leaves_the_session() {
    let daemon = Daemon::start().await;
    let id = start(&daemon, "a").await;
    part(&daemon, "a", &id, "1", "abc".into()).await;
    assert_eq!(
        complete(&daemon, "a", &id, json!({})).await.wrong(),
        ["/parts"]
    );
    assert_eq!(
        complete(&daemon, "a", &id, json!({"parts": [1]}))
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn a_part_has_at_most_10_mib_and_a_number_from_1_on() {
    let daemon = Daemon::start().await;
    let id = start(&daemon, "a").await;
    let large = part(&daemon, "a", &id, "1", vec![0; (10 << 20) + 1]).await;
    assert_eq!(
        (large.status.as_u16(), &*large.message()),
        (413, "Part exceeds 10MB limit")
    );
    for bad in ["0", "-1", "x", "", "1.5", "99999999999"] {
        let answer = part(&daemon, "a", &id, bad, vec![1]).await;
        assert_eq!(answer.wrong(), ["/part_number"], "{bad}");
    }
}

#[tokio::test]
async fn a_session_belongs_to_its_project_and_key() {
    let daemon = Daemon::start().await;
    let id = start(&daemon, "a").await;
    for query in [
        query("b"),
        query("a").replace("Name", "Other"),
        query("a") + "&cache_category=other",
        query("a").replace("=app", "=other"),
        query("a").replace("=acme", "=other"),
    ] {
        let target = format!("/api/cache/module/part?{query}&upload_id={id}&part_number=1");
        assert_eq!(daemon.post(target, "x").send().await.status, 404, "{query}");
        let target = format!("/api/cache/module/complete?{query}&upload_id={id}");
        let call = daemon.call("POST", target).json(&json!({"parts": []}));
        assert_eq!(call.send().await.status, 404, "{query}");
    }
    assert_eq!(part(&daemon, "a", "no-id", "1", vec![1]).await.status, 404);
    assert_eq!(part(&daemon, "a", &id, "1", vec![1]).await.status, 204);
}

#[tokio::test]
async fn an_account_has_at_most_64_sessions() {
    let daemon = Daemon::start().await;
    for number in 0..64 {
        start(&daemon, &format!("h{number}")).await;
    }
    let target = format!("/api/cache/module/start?{}", query("one-more"));
    let answer = daemon.call("POST", target.clone()).send().await;
    assert_eq!(answer.status, 429);
    assert!((1..=4).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
    let other = target.replace("=acme", "=other");
    assert_eq!(daemon.call("POST", other).send().await.status, 200);
}

#[tokio::test]
async fn categories_are_apart_and_builds_is_the_default() {
    let daemon = Daemon::start().await;
    let id = start(&daemon, "a").await;
    part(&daemon, "a", &id, "1", "abc".into()).await;
    complete(&daemon, "a", &id, json!({"parts": [1]})).await;
    let with = |category: &str| format!("{}&cache_category={category}", artifact("a"));
    assert_eq!(daemon.call("HEAD", with("builds")).send().await.status, 204);
    assert_eq!(daemon.call("HEAD", with("tests")).send().await.status, 404);
    let missing = daemon
        .get(format!("/api/cache/module/x?{PROJECT}"))
        .send()
        .await;
    assert_eq!(missing.wrong(), ["/hash", "/name"]);
}
