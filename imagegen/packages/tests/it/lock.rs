//! The lock file: its text, its errors, its digest of the request.

use packages::{Lock, Request, Role};

const SMALL: &str = include_str!("../data/small.lock");

fn request() -> Request {
    toml::from_str(include_str!("../data/request.toml")).expect("the request")
}

#[test]
fn a_lock_that_is_read_is_written_as_the_same_bytes() {
    let lock = Lock::parse(SMALL).expect("valid");
    assert_eq!(lock.render(), SMALL);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("packages.lock");
    lock.save(&path).expect("saved");
    assert_eq!(Lock::load(&path).expect("loaded"), lock);
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        1,
        "nothing beside it"
    );
}

#[test]
fn the_lock_of_this_project_is_valid_and_whole() {
    let text = include_str!("../../../../configs/packages.lock");
    let lock = Lock::parse(text).expect("valid");
    assert_eq!(lock.render(), text);
    for name in ["systemd", "openssh-server", "libc6", "nftables", "liblzma5"] {
        assert!(lock.system().any(|p| p.name == name), "{name}");
    }
    for kernel in ["6.18-cloud", "6.18-generic", "6.12-cloud", "newest-cloud"] {
        assert!(
            lock.kernel(kernel)
                .any(|p| p.name.starts_with("linux-image-")),
            "{kernel}"
        );
    }
    assert!(lock.of_role(&Role::Build).any(|p| p.name == "libc6-dev"));
    assert!(!lock.system().any(|p| p.name == "perl-base"));
}

#[test]
fn broken_locks_are_refused_with_the_place_and_the_reason() {
    let errors = [
        ("cut", &SMALL[..SMALL.len() - 40]),
        ("not toml", "packages"),
        ("empty", ""),
        (
            "newer",
            &SMALL.replace("version = 1\n", "version = 2\nnew = true\n"),
        ),
        (
            "unknown key",
            &SMALL.replace("arch = \"amd64\", ", "arch = \"amd64\", why = 1, "),
        ),
        ("hash", &SMALL.replace("2fd7b04f", "2FD7b04f")),
        ("role", &SMALL.replace("\"build\"", "\"biuld\"")),
        (
            "path",
            &SMALL.replace("pool/main/b/bash/", "pool/../../etc/"),
        ),
        (
            "suite",
            &SMALL.replace("suite = \"trixie-security\"", "suite = \"forky\""),
        ),
        ("size", &SMALL.replace("size = 1500792", "size = 0")),
        (
            "twice",
            &SMALL.replace("name = \"libc6\"", "name = \"bash\""),
        ),
        (
            "architecture",
            &SMALL.replace("architecture = \"amd64\"", "architecture = \"arm64\""),
        ),
        (
            "conflict",
            &SMALL.replace("packages = [", "<<<<<<< HEAD\npackages = ["),
        ),
    ]
    .map(|(what, text)| format!("## {what}\n{}\n", Lock::parse(text).expect_err(what)));
    insta::assert_snapshot!(errors.concat());
    let error = Lock::load("no/such/packages.lock".as_ref()).expect_err("there is none");
    insta::assert_snapshot!(error, @"no/such/packages.lock: there is no lock yet: `imagegen lock` makes it");
}

#[test]
fn the_digest_of_a_request_changes_with_what_it_asks_for_only() {
    let one = request();
    let mut same = one.clone();
    same.install.reverse();
    same.install.push("bash".to_owned());
    same.exclude
        .insert("perl-base".to_owned(), "in other words".to_owned());
    assert_eq!(one.digest(), same.digest());
    let changes: [fn(&mut Request); 7] = [
        |r| r.install.push("vim".to_owned()),
        |r| drop(r.exclude.remove("perl-base")),
        |r| r.build.clear(),
        |r| r.suites.truncate(2),
        |r| {
            drop(
                r.pins
                    .insert("curl".to_owned(), "trixie-backports".to_owned()),
            )
        },
        |r| r.kernels.values_mut().for_each(|k| k.version.clear()),
        |r| r.architecture = "arm64".to_owned(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut other = one.clone();
        change(&mut other);
        assert_ne!(one.digest(), other.digest(), "change {number}");
    }
}
