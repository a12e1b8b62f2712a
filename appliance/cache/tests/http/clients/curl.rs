//! curl.

use super::{command, run};
use crate::daemon::{Daemon, PROJECT, TOKEN, pattern};

#[tokio::test(flavor = "multi_thread")]
async fn puts_gets_and_resumes() {
    let daemon = Daemon::start().await;
    let home = tempfile::tempdir().unwrap();
    let bytes = pattern(3_000_000);
    std::fs::write(home.path().join("file"), &bytes).unwrap();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let tuist = format!("https://{}/api/cache/cas/a?{PROJECT}", daemon.https);
    let free = format!("https://{}/cache/acme/app/a", daemon.https);
    for version in ["--http1.1", "--http2"] {
        let curl = |arguments: &[&str]| {
            let mut curl = command("curl", home.path());
            curl.args(["-sS", "-k", "--fail-with-body", version, "-H", &bearer]);
            curl.args(["-o", "got", "-w", "%{http_code} %{http_version}"]);
            curl.args(arguments);
            curl
        };
        let version = if version == "--http2" { "2" } else { "1.1" };
        let octets = "Content-Type: application/octet-stream";
        let put = ["-X", "POST", "-H", octets, "--data-binary", "@file", &tuist];
        assert_eq!(run(&mut curl(&put)).await, format!("204 {version}"));
        assert_eq!(run(&mut curl(&[&tuist])).await, format!("200 {version}"));
        assert_eq!(std::fs::read(home.path().join("got")).unwrap(), bytes);
        // What broke off in the middle.
        std::fs::write(home.path().join("got"), &bytes[..1_000_000]).unwrap();
        assert_eq!(
            run(&mut curl(&["-C", "-", &tuist])).await,
            format!("206 {version}")
        );
        assert_eq!(std::fs::read(home.path().join("got")).unwrap(), bytes);
        let status = if version == "1.1" { "201" } else { "200" };
        let put = run(&mut curl(&["-T", "file", &free])).await;
        assert_eq!(put, format!("{status} {version}"));
    }
    // The token as the password of Basic.
    let mut curl = command("curl", home.path());
    curl.args([
        "-sS",
        "-k",
        "--fail",
        "-u",
        &format!("me:{TOKEN}"),
        "-o",
        "got",
        &free,
    ]);
    run(&mut curl).await;
    assert_eq!(std::fs::read(home.path().join("got")).unwrap(), bytes);
}
