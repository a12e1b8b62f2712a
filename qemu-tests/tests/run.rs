//! `imagegen run`, as a person runs it: it boots the image, puts an artifact, gets it back, logs in
//! and ends by itself.

use std::process::Output;

use qemu_tests::imagegen;

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    imagegen()
        .args(["run", "--check", "--dir"])
        .arg(dir.path())
        .args(args)
        .output()
        .expect("cargo starts")
}

fn assert_serves(output: &Output) {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    for line in [
        "put an artifact of ",
        "got the same bytes back",
        "logged in to dev.",
    ] {
        assert!(out.contains(line), "no `{line}` in {out}\n{err}");
    }
}

#[test]
fn the_shipped_image_serves_through_firmware() {
    assert_serves(&run(&[]));
}

#[test]
fn the_shipped_image_serves_without_firmware() {
    assert_serves(&run(&["--direct"]));
}
