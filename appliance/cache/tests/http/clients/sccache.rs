//! sccache over WebDAV.

use std::path::Path;

use super::{command, daemon, files, installed, remove, run};
use crate::daemon::TOKEN;

fn sccache(home: &Path, base: &str, port: u16) -> tokio::process::Command {
    let mut sccache = command(installed("py/bin/sccache"), home);
    sccache
        .env("SCCACHE_WEBDAV_ENDPOINT", base)
        .env("SCCACHE_WEBDAV_TOKEN", TOKEN)
        .env("SCCACHE_WEBDAV_KEY_PREFIX", "rust")
        .env("SCCACHE_SERVER_PORT", port.to_string());
    sccache
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-clients installs it"]
async fn uploads_and_hits() {
    let daemon = daemon().await;
    let home = tempfile::tempdir().unwrap();
    files(home.path(), &[("a.c", "int a(void) { return 1; }\n")]);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    for round in 0..2 {
        let base = daemon.base();
        let mut compile = sccache(home.path(), &base, port);
        compile.args(["gcc", "-c", "a.c", "-o", "a.o"]);
        run(&mut compile).await;
        // It uploads beside; stopping waits for that.
        run(sccache(home.path(), &base, port).arg("--stop-server")).await;
        remove(&home.path().join("a.o"));
        assert_eq!(daemon.stored("sccache").await, 1.0);
        assert_eq!(daemon.hits("sccache").await, f64::from(round));
    }
}
