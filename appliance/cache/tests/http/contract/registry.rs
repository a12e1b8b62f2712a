//! 1.9: the registry of Swift packages, which this node does not have.

use crate::daemon::Daemon;

#[tokio::test]
async fn every_route_says_that_there_is_no_registry() {
    let daemon = Daemon::start().await;
    for (method, path) in [
        ("GET", ""),
        ("GET", "/availability"),
        ("POST", "/login"),
        ("GET", "/identifiers?url=https://example.org/a.git"),
        ("GET", "/scope/name"),
        ("HEAD", "/scope/name/1.0.0.zip"),
        ("GET", "/scope/name/1.0.0/Package.swift"),
    ] {
        let call = daemon
            .call(method, format!("/api/registry/swift{path}"))
            .no_token();
        let answer = call.send().await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.header("content-version"), "1");
        if method != "HEAD" {
            assert_eq!(
                answer.message(),
                "Registry is not available on this cache node."
            );
        }
    }
}
