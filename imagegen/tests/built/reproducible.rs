//! Two builds are the same bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{binaries, build, folder, shipped, source_tree};

/// Programs included: by another user, from a second checkout elsewhere, with a target folder, Cargo
/// home and cache of packages of their own, another umask, time zone and language.
#[test]
fn another_user_builds_the_same_image_from_source() {
    let elsewhere = folder();
    let tree = elsewhere.path().join("a longer name/checkout");
    check_out(&tree);
    let (imagegen, home) = (
        elsewhere.path().join("imagegen"),
        elsewhere.path().join("home"),
    );
    fs::copy(env!("CARGO_BIN_EXE_imagegen"), &imagegen).unwrap();
    // Their own cache, filled from ours: no network is asked.
    let cache = packages::Cache::of_user().unwrap();
    copy_tree(cache.root(), &home.join(".cache/larder"));
    let output = other_user(elsewhere.path(), &home)
        .arg(&imagegen)
        .arg("build")
        .current_dir(&tree)
        .env("TZ", "Pacific/Auckland")
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", elsewhere.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in [
        "larder.manifest.json",
        "larder.sbom.json",
        "larder.raw.zst",
        "larder.raw",
    ] {
        let status = Command::new("cmp")
            .arg(shipped(name))
            .arg(tree.join("build").join(name))
            .status()
            .unwrap();
        assert!(status.success(), "{name} differs ({status})");
    }
}

/// Copies the files of this tree that git knows or would take.
fn check_out(tree: &Path) {
    let listed = Command::new("git")
        .current_dir(source_tree())
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files: {listed:?}");
    for name in String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
    {
        let (from, to) = (source_tree().join(name), tree.join(name));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let Ok(meta) = fs::symlink_metadata(&from) else {
            continue;
        };
        if meta.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from).unwrap(), to).unwrap();
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// What starts a program as somebody else, who owns `folder`, has a copy of this user's downloads and
/// may run their compiler (bound into the home, in a mount namespace). Only root can do that; for
/// anybody else it is the same user with that home.
fn other_user(folder: &Path, home: &Path) -> Command {
    let ours = std::env::var("HOME").unwrap();
    let ours = |variable: &str, name: &str| {
        std::env::var(variable).unwrap_or_else(|_| format!("{ours}/{name}"))
    };
    let (cargo, rustup) = (ours("CARGO_HOME", ".cargo"), ours("RUSTUP_HOME", ".rustup"));
    let lent = [
        (format!("{cargo}/bin"), home.join(".cargo/bin")),
        (rustup, home.join(".rustup")),
    ];
    let lent: Vec<_> = lent
        .into_iter()
        .filter(|(from, _)| Path::new(from).is_dir())
        .collect();
    fs::create_dir_all(home.join(".cargo")).unwrap();
    for name in ["config.toml", "config"] {
        let from = Path::new(&cargo).join(name);
        if from.exists() {
            fs::copy(from, home.join(".cargo").join(name)).unwrap();
        }
    }
    // Not the sources beside them: some crates have files that only their owner may read.
    for name in ["registry/cache", "registry/index"] {
        copy_tree(
            &Path::new(&cargo).join(name),
            &home.join(".cargo").join(name),
        );
    }
    let mut script = String::from("umask 077; ");
    let mut command = if rustix::process::geteuid().is_root() {
        for (from, to) in &lent {
            fs::create_dir_all(to).unwrap();
            let (from, to) = (Path::new(from).display(), to.display());
            script += &format!("mount --bind '{from}' '{to}' && ");
        }
        let chown = Command::new("chown")
            .args(["-R", "12345:23456"])
            .arg(folder)
            .status();
        assert!(chown.unwrap().success());
        script += "exec setpriv --reuid=12345 --regid=23456 --clear-groups \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh"]);
        command
    } else {
        eprintln!("only root can become another user; building as the same one");
        for (from, to) in &lent {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(from, to).unwrap();
        }
        script += "exec \"$@\"";
        Command::new("sh")
    };
    let path = std::env::var("PATH").unwrap();
    command
        .args(["-c", &script, "sh"])
        .env_clear()
        .env("HOME", home)
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env(
            "PATH",
            format!("{}:{path}", home.join(".cargo/bin").display()),
        );
    command
}

/// A build that differs is seen: one byte of one configuration file.
#[test]
fn another_configuration_is_another_image() {
    let folder = folder();
    let programs = binaries();
    let configs = folder.path().join("configs");
    copy_tree(&source_tree().join("configs"), &configs);
    fs::write(configs.join("root/etc/motd"), "x\n").unwrap();
    let status = build(&["--no-compress", "--configs", configs.to_str().unwrap()])
        .arg("--binaries")
        .arg(programs.path())
        .arg("--out")
        .arg(folder.path().join("build"))
        .status()
        .unwrap();
    assert!(status.success());
    let hash = |path: &Path| {
        let manifest = imagegen::manifest::Manifest::load(path).unwrap();
        manifest.root_hash
    };
    let other = folder.path().join("build/larder.manifest.json");
    assert_ne!(hash(&other), hash(&shipped("larder.manifest.json")));
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
    let _ = fs::set_permissions(to, PermissionsExt::from_mode(0o755));
}
