//! Two builds are the same bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{binaries, build, folder, shipped, source_tree};

/// Some of what a build leaves, compared byte by byte with what ships.
fn assert_same_as_shipped(out: &Path, names: &[&str]) {
    for name in names {
        let status = Command::new("cmp")
            .arg(shipped(name))
            .arg(out.join(name))
            .status()
            .unwrap();
        assert!(status.success(), "{name} differs ({status})");
    }
}

/// Programs included: from a second checkout, elsewhere, with its own target folder and Cargo home,
/// another umask, time zone and language.
#[test]
fn another_checkout_builds_the_same_image_from_source() {
    let elsewhere = folder();
    let tree = elsewhere.path().join("a longer name/checkout");
    fs::create_dir_all(&tree).unwrap();
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
    let cargo_home = elsewhere.path().join("cargo");
    fs::create_dir(&cargo_home).unwrap();
    let home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    for name in ["registry", "config.toml", "config"] {
        let from = Path::new(&home).join(name);
        if from.exists() {
            std::os::unix::fs::symlink(from, cargo_home.join(name)).unwrap();
        }
    }
    let script = format!("umask 077; exec {} build", env!("CARGO_BIN_EXE_imagegen"));
    let output = Command::new("sh")
        .current_dir(&tree)
        .args(["-c", &script])
        .env("CARGO_HOME", &cargo_home)
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
    assert_same_as_shipped(
        &tree.join("build"),
        &[
            "larder.manifest.json",
            "larder.sbom.json",
            "larder.raw.zst",
            "larder.raw",
        ],
    );
}

/// Another user, with the same programs: no name, id, umask or home of theirs gets in.
#[test]
fn another_user_builds_the_same_image() {
    let folder = folder();
    let programs = binaries();
    let compiler = manifest_compiler();
    fs::write(programs.path().join("compiler"), compiler).unwrap();
    let imagegen = folder.path().join("imagegen");
    fs::copy(env!("CARGO_BIN_EXE_imagegen"), &imagegen).unwrap();
    copy_tree(
        &source_tree().join("configs"),
        &folder.path().join("configs"),
    );
    let secrets = folder.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::copy(
        source_tree().join("secrets/manifest.toml"),
        secrets.join("manifest.toml"),
    )
    .unwrap();
    // Their own cache, filled from ours: no network is asked.
    let cache = packages::Cache::of_user().unwrap();
    copy_tree(cache.root(), &folder.path().join("home/.cache/larder"));
    let mut command = if rustix::process::geteuid().is_root() {
        let chown = Command::new("chown")
            .arg("-R")
            .arg("12345:23456")
            .arg(folder.path())
            .status();
        assert!(chown.unwrap().success());
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=12345", "--regid=23456", "--clear-groups"])
            .arg(&imagegen);
        command
    } else {
        eprintln!("SKIPPED: only root can become another user; building as the same one");
        Command::new(&imagegen)
    };
    let output = command
        .current_dir(folder.path())
        .args(["build", "--binaries"])
        .arg(programs.path())
        .env_clear()
        .env("HOME", folder.path().join("home"))
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Prebuilt programs bring no list of crates; all else is the same.
    assert_same_as_shipped(
        &folder.path().join("build"),
        &["larder.manifest.json", "larder.raw.zst", "larder.raw"],
    );
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

fn manifest_compiler() -> String {
    imagegen::manifest::Manifest::load(&shipped("larder.manifest.json"))
        .unwrap()
        .compiler
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
