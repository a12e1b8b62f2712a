//! Bazel over HTTP.

use std::path::Path;

use super::{command, daemon, files, run};
use crate::daemon::TOKEN;

async fn bazel(home: &Path, arguments: &[&str]) -> String {
    let mut bazel = command("bazel", home);
    bazel.arg(format!("--output_user_root={}", home.join("out").display()));
    bazel.arg("--max_idle_secs=5").args(arguments);
    run(&mut bazel).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    files(
        home.path(),
        &[
            ("WORKSPACE", ""),
            (
                "BUILD",
                "genrule(name = \"a\", outs = [\"out.txt\"], cmd = \"echo built > $@\")\n",
            ),
        ],
    );
    let cache = format!(
        "--remote_cache=http://me:{TOKEN}@{}/cache/acme/app",
        daemon.http
    );
    bazel(home.path(), &["build", "//:a", &cache]).await;
    assert!(daemon.stored("bazel").await >= 2.0);
    bazel(home.path(), &["clean"]).await;
    let text = bazel(home.path(), &["build", "//:a", &cache]).await;
    assert!(text.contains("1 remote cache hit"), "{text}");
    bazel(home.path(), &["shutdown"]).await;
}
