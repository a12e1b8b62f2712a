//! Gradle's own HttpBuildCache.

use std::path::Path;

use super::{command, daemon, files, remove, run};
use crate::daemon::TOKEN;

async fn build(home: &Path) -> String {
    let mut gradle = command("gradle", home);
    gradle.env("GRADLE_USER_HOME", home.join("user")).args([
        "--no-daemon",
        "--build-cache",
        "make",
    ]);
    run(&mut gradle).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    let settings = format!(
        "buildCache {{ local {{ enabled = false }}\n remote(HttpBuildCache) {{ url = '{}/'; push = true\n \
         credentials {{ username = 'me'; password = '{TOKEN}' }} }} }}\n",
        daemon.base()
    );
    let script = "class Make extends DefaultTask {\n @OutputFile File out = project.file('out.txt')\n \
                  @TaskAction void make() { out.text = 'built' } }\n\
                  task make(type: Make) { outputs.cacheIf { true } }\n";
    files(
        home.path(),
        &[("settings.gradle", &settings), ("build.gradle", script)],
    );
    build(home.path()).await;
    assert_eq!(daemon.stored("gradle-http").await, 1.0);
    for path in ["out.txt", ".gradle"] {
        remove(&home.path().join(path));
    }
    let text = build(home.path()).await;
    assert_eq!(daemon.hits("gradle-http").await, 1.0, "{text}");
    assert_eq!(
        std::fs::read_to_string(home.path().join("out.txt")).unwrap(),
        "built"
    );
}
