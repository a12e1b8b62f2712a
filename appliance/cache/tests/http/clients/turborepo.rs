//! Turborepo.

use std::path::Path;

use super::{command, daemon, files, installed, nobody, remove, run};
use crate::daemon::TOKEN;

fn workspace(home: &Path, signed: bool) {
    let turbo = format!(
        r#"{{"remoteCache": {{"signature": {signed}, "preflight": {signed}}},
        "tasks": {{"build": {{"outputs": ["dist/**"]}}}}}}"#
    );
    let package = |name: &str| {
        format!(
            r#"{{"name": "{name}", "scripts": {{"build": "mkdir -p dist && echo {name} > dist/out.txt"}}}}"#
        )
    };
    files(
        home,
        &[
            (
                "package.json",
                r#"{"name": "root", "private": true, "packageManager": "npm@9.0.0", "workspaces": ["packages/*"]}"#,
            ),
            (
                "package-lock.json",
                r#"{"name": "root", "lockfileVersion": 3, "packages": {"": {"workspaces": ["packages/*"]}}}"#,
            ),
            ("turbo.json", &turbo),
            (".gitignore", "dist\n.turbo\n"),
            ("packages/a/package.json", &package("a")),
            ("packages/b/package.json", &package("b")),
        ],
    );
}

async fn build(home: &Path, base: &str) -> String {
    let mut turbo = command(installed("npm/node_modules/.bin/turbo"), home);
    turbo
        .env("TURBO_API", base)
        .env("TURBO_TOKEN", TOKEN)
        .env("TURBO_TEAM", "acme")
        .env(
            "TURBO_REMOTE_CACHE_SIGNATURE_KEY",
            "0123456789abcdef0123456789abcdef",
        )
        .env("TURBO_TELEMETRY_DISABLED", "1")
        .args(["run", "build", "--no-daemon"]);
    run(&mut turbo).await
}

fn forget(home: &Path) {
    for path in [
        ".turbo",
        "node_modules",
        "packages/a/dist",
        "packages/b/dist",
    ] {
        remove(&home.join(path));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    workspace(home.path(), false);
    build(home.path(), &daemon.base()).await;
    assert_eq!(daemon.stored("turborepo").await, 2.0);
    forget(home.path());
    let text = build(home.path(), &daemon.base()).await;
    assert!(text.contains("FULL TURBO"), "{text}");
    assert_eq!(daemon.hits("turborepo").await, 2.0);
    assert_eq!(
        std::fs::read_to_string(home.path().join("packages/a/dist/out.txt")).unwrap(),
        "a\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn signs_over_what_was_unsigned_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    workspace(home.path(), true);
    build(home.path(), &daemon.base()).await;
    assert_eq!(daemon.stored("turborepo").await, 2.0);
    forget(home.path());
    let text = build(home.path(), &daemon.base()).await;
    assert!(text.contains("FULL TURBO"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn builds_without_us() {
    let home = tempfile::tempdir().unwrap();
    workspace(home.path(), false);
    build(home.path(), &nobody()).await;
    assert!(home.path().join("packages/b/dist/out.txt").exists());
}
