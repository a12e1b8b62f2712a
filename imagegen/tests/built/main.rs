//! The build itself: the same bytes wherever and by whomever, and what bad input leads to. Behind the
//! feature `built`: needs build/larder.raw of this source tree, which `make image` makes with the
//! programs that these tests take again.

// A helper that fails fails the test.
#![allow(clippy::unwrap_used)]

mod refusals;
mod reproducible;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Root of the source tree.
fn source_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// The image that ships and what lies beside it.
fn shipped(name: &str) -> PathBuf {
    let path = source_tree().join("build").join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `make image`",
        path.display()
    );
    path
}

/// A folder with the programs of the image that ships, readable by everybody.
fn binaries() -> tempfile::TempDir {
    let folder = folder();
    let target = source_tree().join("target/image/x86_64-unknown-linux-gnu");
    for (from, name) in [
        ("release/appliance", "appliance"),
        ("stage1/stage1", "stage1"),
    ] {
        std::fs::copy(target.join(from), folder.path().join(name)).unwrap();
    }
    folder
}

/// A new folder that everybody may enter, on a disk.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// `imagegen build` with arguments; packages come from the cache of the user who runs the tests.
fn build(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    command.current_dir(source_tree()).arg("build").args(args);
    command
}

/// What a build that must fail says; it exits with 1, and nothing panicked.
fn refused(command: &mut Command) -> String {
    let output: Output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let error = said.lines().skip_while(|line| !line.starts_with("error: "));
    error.collect::<Vec<_>>().join("\n")
}
