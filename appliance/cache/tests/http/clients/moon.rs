//! moon over HTTP.

use std::path::Path;

use super::{command, daemon, files, installed, remove, run};
use crate::daemon::TOKEN;

/// In `work`, because moon takes a folder named `.moon` in the home for its own.
async fn build(home: &Path) -> String {
    let mut moon = command(installed("npm/node_modules/.bin/moon"), home);
    moon.current_dir(home.join("work"))
        .env("LARDER_TOKEN", TOKEN)
        .args(["run", "a:build"]);
    run(&mut moon).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    let work = home.path().join("work");
    let workspace = format!(
        "projects: ['a']\nvcs:\n  defaultBranch: main\nremote:\n  api: http\n  host: 'http://{}'\n  \
         auth:\n    token: LARDER_TOKEN\n  cache:\n    instanceName: 'cache/acme/app'\n",
        daemon.http
    );
    files(
        &work,
        &[
            (".moon/workspace.yml", &workspace),
            (
                "a/moon.yml",
                "tasks:\n  build:\n    command: 'sh -c \"mkdir -p dist && echo built > dist/out.txt\"'\n    \
                 outputs: ['dist']\n    options:\n      runInCI: true\n",
            ),
        ],
    );
    let git = |arguments: &[&str]| {
        let mut git = command("git", home.path());
        git.current_dir(&work);
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
        git.args(arguments);
        git
    };
    run(&mut git(&["init", "-q", "-b", "main"])).await;
    run(&mut git(&["add", "a", ".moon/workspace.yml"])).await;
    run(&mut git(&["commit", "-q", "-m", "a"])).await;
    let text = build(home.path()).await;
    assert!(daemon.stored("moon").await >= 1.0, "{text}");
    for path in [".moon/cache", "a/dist"] {
        remove(&work.join(path));
    }
    let text = build(home.path()).await;
    assert!(daemon.hits("moon").await >= 1.0, "{text}");
    assert_eq!(
        std::fs::read_to_string(work.join("a/dist/out.txt")).unwrap(),
        "built\n"
    );
}
