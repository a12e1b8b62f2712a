//! Plain HTTP: off, or for networks that are listed.

use super::BASE;
use crate::daemon::{Daemon, PROJECT};

#[tokio::test]
async fn plain_http_is_off() {
    let daemon = Daemon::start().await;
    let answer = daemon.get(format!("{BASE}/k")).plain().send().await;
    assert_eq!(answer.status, 301);
    assert_eq!(
        answer.header("location"),
        format!("https://localhost{BASE}/k")
    );
}

#[tokio::test]
async fn plain_http_is_for_listed_networks_and_not_for_tuist() {
    let daemon = Daemon::start_with(|settings| {
        settings.plain_networks = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert_eq!(
        daemon.get(format!("{BASE}/k")).plain().send().await.status,
        301
    );
    let daemon = Daemon::start_with(|settings| {
        settings.plain_networks = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert_eq!(
        daemon
            .put(format!("{BASE}/k"), "x")
            .plain()
            .send()
            .await
            .status,
        201
    );
    assert_eq!(
        daemon.get(format!("{BASE}/k")).plain().send().await.body,
        "x"
    );
    assert_eq!(
        daemon
            .get(format!("{BASE}/k"))
            .plain()
            .no_token()
            .send()
            .await
            .status,
        401
    );
    let tuist = daemon
        .get(format!("/api/cache/cas/a?{PROJECT}"))
        .plain()
        .send()
        .await;
    assert_eq!(tuist.status, 301);
}
