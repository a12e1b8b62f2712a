//! ccache, in its three layouts.

use super::{command, daemon, files, nobody, remove, run};
use crate::daemon::TOKEN;

async fn compile(home: &std::path::Path, base: &str, layout: &str) {
    let mut ccache = command("ccache", home);
    let storage = format!("{base}|layout={layout}|bearer-token={TOKEN}");
    ccache
        .env("CCACHE_DIR", home.join("cache"))
        .env("CCACHE_REMOTE_STORAGE", storage)
        .env("CCACHE_NODEPEND", "1")
        .args(["gcc", "-c", "a.c", "-o", "a.o"]);
    run(&mut ccache).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_hits_in_every_layout() {
    for layout in ["flat", "subdirs", "bazel"] {
        let daemon = daemon().await;
        let home = tempfile::tempdir().unwrap();
        files(
            home.path(),
            &[
                ("a.c", "#include \"a.h\"\nint a(void) { return A; }\n"),
                ("a.h", "#define A 1\n"),
            ],
        );
        compile(home.path(), &daemon.base(), layout).await;
        let object = std::fs::read(home.path().join("a.o")).unwrap();
        // A manifest and a result.
        assert_eq!(daemon.stored("ccache").await, 2.0, "{layout}");
        remove(&home.path().join("cache"));
        remove(&home.path().join("a.o"));
        compile(home.path(), &daemon.base(), layout).await;
        assert_eq!(daemon.hits("ccache").await, 2.0, "{layout}");
        assert_eq!(std::fs::read(home.path().join("a.o")).unwrap(), object);
        // Another header: the same manifest is put again, with one more result.
        std::fs::write(home.path().join("a.h"), "#define A 2\n").unwrap();
        remove(&home.path().join("cache"));
        compile(home.path(), &daemon.base(), layout).await;
        assert_eq!(daemon.stored("ccache").await, 4.0, "{layout}");
        for header in ["#define A 1\n", "#define A 2\n"] {
            let before = daemon.hits("ccache").await;
            std::fs::write(home.path().join("a.h"), header).unwrap();
            remove(&home.path().join("cache"));
            compile(home.path(), &daemon.base(), layout).await;
            assert_eq!(
                daemon.hits("ccache").await,
                before + 2.0,
                "{layout} {header}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compiles_without_us() {
    let home = tempfile::tempdir().unwrap();
    files(home.path(), &[("a.c", "int a;\n")]);
    compile(home.path(), &nobody(), "subdirs").await;
    assert!(home.path().join("a.o").exists());
}
