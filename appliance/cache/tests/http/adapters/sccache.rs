//! The part of WebDAV that sccache uses.

use super::BASE;
use crate::daemon::Daemon;

#[tokio::test]
async fn its_start_finds_every_folder() {
    let daemon = Daemon::start().await;
    for prefix in ["", "/pre/fix"] {
        let check = format!("{BASE}{prefix}/.sccache_check");
        assert_eq!(daemon.get(&check).send().await.status, 404);
        let folder = daemon
            .call("PROPFIND", format!("{BASE}{prefix}/"))
            .header("depth", "0");
        let answer = folder.send().await;
        assert_eq!(answer.status, 207);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains("<D:collection/>"), "{text}");
        assert!(
            text.contains(&format!("<D:href>{BASE}{prefix}/</D:href>")),
            "{text}"
        );
        for body in ["Hello, World!", "again"] {
            assert_eq!(daemon.put(&check, body).send().await.status, 201);
            assert_eq!(daemon.get(&check).send().await.body, body);
        }
        let made = daemon
            .call("MKCOL", format!("{BASE}{prefix}/a/"))
            .send()
            .await;
        assert_eq!(made.status, 201);
    }
    // Nothing of it is in the store.
    assert_eq!(
        daemon
            .metric("larder_cache_client_upload_success_total{client=\"sccache\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn objects_are_put_once_and_have_properties() {
    let daemon = Daemon::start().await;
    let target = format!("{BASE}/pre/0/a/b/0ab{}", "c".repeat(61));
    assert_eq!(daemon.put(&target, "zip").send().await.status, 201);
    assert_eq!(daemon.put(&target, "other").send().await.status, 200);
    assert_eq!(daemon.get(&target).send().await.body, "zip");
    let answer = daemon.call("PROPFIND", &target).send().await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(
        text.contains("<D:getcontentlength>3</D:getcontentlength>"),
        "{text}"
    );
    assert!(!text.contains("collection"), "{text}");
}
