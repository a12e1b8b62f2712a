//! Bad input: a clear error, exit status 1, and nothing half-written under a final name.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{binaries, build, folder, refused, source_tree};

/// Names below a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn arguments_that_make_no_sense_are_refused_in_words() {
    let programs = binaries();
    let out = folder();
    let path = |name: &str| out.path().join(name).to_str().unwrap().to_string();
    fs::create_dir(out.path().join("taken")).unwrap();
    fs::create_dir(out.path().join("taken/larder.raw")).unwrap();
    fs::write(out.path().join("file"), "").unwrap();
    let programs = programs.path().to_str().unwrap();
    let none = path("none");
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--host", "nobody"],
            &["no host `nobody`", "cache-eu-central"],
        ),
        (&["--kernel", "5.10"], &["no kernel 5.10", "6.18-cloud"]),
        (&["--configs", &none], &["image.toml"]),
        (&["--out", &path("taken")], &["larder.raw is a folder"]),
        (&["--out", &path("file")], &["--out"]),
        (&["--binaries", &none], &["appliance", "--binaries"]),
        (&["--pcr-key", &none], &["--pcr-key"]),
        (
            &["--disk-size", "1G", "--binaries", programs],
            &["too small", "MiB"],
        ),
    ];
    for (args, expected) in cases {
        let mut command = build(args);
        if !args.contains(&"--out") {
            command.arg("--out").arg(out.path().join("build"));
        }
        let said = refused(&mut command);
        for word in *expected {
            assert!(said.contains(word), "{args:?}: {word:?} is not in {said}");
        }
    }
    assert_eq!(
        names(&out.path().join("build")),
        [""; 0],
        "something is left"
    );
}

#[test]
fn a_lock_that_does_not_fit_says_what_to_do() {
    let out = folder();
    let configs = out.path().join("configs");
    let status = Command::new("cp")
        .arg("-a")
        .arg(source_tree().join("configs"))
        .arg(&configs)
        .status();
    assert!(status.unwrap().success());
    let image = configs.join("image.toml");
    let text = fs::read_to_string(&image).unwrap();
    fs::write(
        &image,
        text.replace("\"iproute2\",", "\"iproute2\",\n  \"tcpdump\","),
    )
    .unwrap();
    let configs = configs.to_str().unwrap();
    let said = refused(
        build(&["--configs", configs])
            .arg("--out")
            .arg(out.path().join("b")),
    );
    assert!(said.contains("imagegen lock"), "{said}");
}

#[test]
fn without_cache_and_mirror_the_package_and_the_mirror_are_named() {
    let out = folder();
    let programs = binaries();
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let said = refused(
        build(&["--mirror", &format!("http://127.0.0.1:{port}/debian")])
            .arg("--binaries")
            .arg(programs.path())
            .arg("--out")
            .arg(out.path().join("b"))
            .env("HOME", out.path())
            .env("XDG_CACHE_HOME", out.path().join("cache")),
    );
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert_eq!(names(&out.path().join("b")), [""; 0]);
}

#[test]
fn a_second_build_in_the_same_folder_waits_for_nobody() {
    let out = folder();
    let held = fs::File::open(out.path()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let said = refused(build(&["--out", out.path().to_str().unwrap()]).env("TERM", "dumb"));
    assert!(said.contains("another build"), "{said}");
}

/// A disk of 40 MB in a mount namespace of our own.
#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let out = folder();
    let programs = binaries();
    let script = format!(
        "mount -t tmpfs -o size=40m tmpfs {out} && {imagegen} build --binaries {programs} \
         --out {out}; status=$?; ls -A {out} >&2; exit $status",
        out = out.path().display(),
        imagegen = env!("CARGO_BIN_EXE_imagegen"),
        programs = programs.path().display(),
    );
    let said = refused(
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .current_dir(source_tree()),
    );
    assert!(said.contains("No space left on device"), "{said}");
    assert!(!said.contains("larder."), "something is left: {said}");
}

/// Killed at any moment, a build leaves no file under a final name; the next one clears up.
#[test]
fn an_interrupted_build_leaves_nothing_that_looks_whole() {
    let out = folder();
    let programs = binaries();
    let folder = out.path().join("b");
    let start = || {
        let mut command = build(&["--no-compress"]);
        command
            .arg("--binaries")
            .arg(programs.path())
            .arg("--out")
            .arg(&folder);
        command.stderr(std::process::Stdio::null());
        command
    };
    let mut child = start().spawn().unwrap();
    // It is at work once its hidden file is there.
    let part = folder.join(".larder.raw.part");
    while !part.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the build ended before it began to write"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(&folder), [".larder.raw.part"]);
    assert!(start().status().unwrap().success());
    assert_eq!(
        names(&folder),
        ["larder.manifest.json", "larder.raw", "larder.sbom.json"]
    );
}
