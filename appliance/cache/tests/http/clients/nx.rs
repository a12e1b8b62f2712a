//! Nx.

use std::path::Path;

use super::{command, daemon, files, installed, remove, run};
use crate::daemon::TOKEN;

async fn build(home: &Path, base: &str) -> String {
    let mut nx = command(installed("npm/node_modules/.bin/nx"), home);
    nx.env("NX_SELF_HOSTED_REMOTE_CACHE_SERVER", base)
        .env("NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN", TOKEN)
        .env("NX_DAEMON", "false")
        .env("NX_NO_CLOUD", "true")
        .env("NX_WORKSPACE_DATA_DIRECTORY", home.join("data"))
        .args(["run", "a:build"]);
    run(&mut nx).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    files(
        home.path(),
        &[
            ("package.json", r#"{"name": "root", "private": true}"#),
            ("nx.json", "{}"),
            (
                "a/project.json",
                r#"{"name": "a", "targets": {"build": {"cache": true, "outputs": ["{projectRoot}/dist"],
                "command": "mkdir -p a/dist && echo built > a/dist/out.txt"}}}"#,
            ),
        ],
    );
    let modules = home.path().join("node_modules");
    std::os::unix::fs::symlink(installed("npm/node_modules"), modules).unwrap();
    build(home.path(), &daemon.base()).await;
    assert_eq!(daemon.stored("nx").await, 1.0);
    for path in ["data", ".nx", "a/dist"] {
        remove(&home.path().join(path));
    }
    build(home.path(), &daemon.base()).await;
    assert_eq!(daemon.hits("nx").await, 1.0);
    assert_eq!(
        std::fs::read_to_string(home.path().join("a/dist/out.txt")).unwrap(),
        "built\n"
    );
}
