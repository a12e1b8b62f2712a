//! Updating a lock package by package.

use packages::{Error, Flavour, KernelRequest, Refresh, Role};

use crate::archive::{DAY, Mirror, names, request};

const LATER: &str = "Sun, 29 Nov 2026 09:15:44 UTC";

const OLD: [&str; 7] = [
    "ssh 1\nSource: openssh\nDepends: sftp, libc (>= 2), awk",
    "sftp 1\nSource: openssh\nDepends: ssh-common (= 1)",
    "ssh-common 1\nSource: openssh",
    "libc 2\nSource: glibc",
    "libc-dev 2\nSource: glibc\nDepends: libc (= 2)",
    "tool 1\nDepends: libc (>= 2)",
    "mawk 1\nProvides: awk",
];

const NEW: [&str; 8] = [
    "ssh 2\nSource: openssh\nDepends: sftp, libc (>= 2), awk",
    "sftp 2\nSource: openssh\nDepends: ssh-common (= 2)",
    "ssh-common 2\nSource: openssh",
    "libc 3\nSource: glibc",
    "libc-dev 3\nSource: glibc\nDepends: libc (= 3)",
    "tool 2\nDepends: libc (>= 3)",
    "mawk 2\nProvides: awk",
    "extra 1\nDepends: libc (>= 2)",
];

/// A lock of the old packages, on a mirror that now has the new ones.
fn moved_on() -> (Mirror, packages::Request, packages::Lock) {
    let mirror = Mirror::new();
    mirror.publish("trixie", DAY, &OLD);
    let mut request = request(&["ssh", "tool"]);
    request.build = vec!["libc-dev".to_owned()];
    let lock = mirror.resolve(&request).expect("a lock");
    mirror.publish("trixie", LATER, &NEW);
    (mirror, request, lock)
}

fn only(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn one_package_and_its_family_change_and_the_rest_stays() {
    let (mirror, request, lock) = moved_on();
    let new = mirror
        .update(&lock, Refresh::Only(&only(&["ssh"])), &request)
        .expect("a lock");
    assert_eq!(
        names(&new),
        [
            "libc 2",
            "mawk 1",
            "sftp 2",
            "ssh 2",
            "ssh-common 2",
            "tool 1",
            "build libc-dev 2"
        ]
    );
    assert_eq!(new.packages[0], lock.packages[0], "to the byte");
    insta::assert_snapshot!(lock.diff(&new), @r"
    sftp 1 → 2 (trixie)
    ssh 1 → 2 (trixie)
    ssh-common 1 → 2 (trixie)
    3 changed; download 107 B (+0 B); as of 2026-11-29 (was 2026-11-21)
    ");
}

#[test]
fn what_the_package_then_needs_changes_too() {
    let (mirror, request, lock) = moved_on();
    let new = mirror
        .update(&lock, Refresh::Only(&only(&["tool"])), &request)
        .expect("a lock");
    assert_eq!(
        names(&new),
        [
            "libc 3",
            "mawk 1",
            "sftp 1",
            "ssh 1",
            "ssh-common 1",
            "tool 2",
            "build libc-dev 3"
        ]
    );
}

#[test]
fn everything_or_nothing() {
    let (mirror, mut request, lock) = moved_on();
    let new = mirror
        .update(&lock, Refresh::Everything, &request)
        .expect("a lock");
    assert_eq!(new, mirror.resolve(&request).expect("a lock"));
    let same = mirror
        .update(&lock, Refresh::Nothing, &request)
        .expect("a lock");
    assert_eq!(same, lock, "newer dates alone change nothing");
    // What was added to the request comes, what is there stays.
    request.install.push("extra".to_owned());
    let new = mirror
        .update(&lock, Refresh::Nothing, &request)
        .expect("a lock");
    assert!(
        names(&new).contains(&"extra 1".to_owned()) && names(&new).contains(&"libc 2".to_owned())
    );
    assert_ne!(new.request, lock.request);
    // And what is no longer needed goes.
    request.install = vec!["extra".to_owned()];
    request.build.clear();
    let new = mirror
        .update(&new, Refresh::Nothing, &request)
        .expect("a lock");
    assert_eq!(names(&new), ["extra 1", "libc 2"]);
    insta::assert_snapshot!(lock.diff(&new), @r"
    added: extra 1 (trixie)
    removed: mawk 1
    removed: sftp 1
    removed: ssh 1
    removed: ssh-common 1
    removed: tool 1
    removed: libc-dev (to build against) 2
    1 added, 6 removed; download 29 B (-78 B); as of 2026-11-29 (was 2026-11-21)
    ");
}

#[test]
fn names_that_are_not_there_are_refused() {
    let (mirror, request, lock) = moved_on();
    let error = mirror
        .update(&lock, Refresh::Only(&only(&["shh"])), &request)
        .expect_err("a typo");
    insta::assert_snapshot!(error, @"`shh` is neither a package nor a kernel of the lock: nothing to update");
}

#[test]
fn an_older_mirror_is_refused() {
    let (mirror, request, _) = moved_on();
    let lock = mirror.resolve(&request).expect("a lock");
    mirror.publish("trixie", DAY, &OLD);
    let error = mirror
        .update(&lock, Refresh::Everything, &request)
        .expect_err("rolled back");
    assert!(matches!(error, Error::Downgrade { .. }), "{error}");
    assert!(error.to_string().contains("2026-11-29"), "{error}");
}

#[test]
fn kernels_stay_unless_they_are_named() {
    let mirror = Mirror::new();
    let kernel = |version: &str| format!("linux-image-{version}+deb13-cloud-amd64 {version}-1");
    mirror.publish(
        "trixie",
        DAY,
        &["a 1", &kernel("6.12.90"), &kernel("6.18.1")],
    );
    let mut request = request(&["a"]);
    for version in ["6.12", "6.18"] {
        let suites = vec!["trixie".to_owned()];
        let kernel = KernelRequest {
            suites,
            version: version.to_owned(),
            flavour: Flavour::Cloud,
        };
        request.kernels.insert(format!("{version}-cloud"), kernel);
    }
    let lock = mirror.resolve(&request).expect("a lock");
    assert_eq!(lock.kernels(), ["6.12-cloud", "6.18-cloud"]);
    mirror.publish(
        "trixie",
        LATER,
        &["a 2", &kernel("6.12.118"), &kernel("6.18.2")],
    );
    let by_name = only(&["6.12-cloud"]);
    let new = mirror
        .update(&lock, Refresh::Only(&by_name), &request)
        .expect("a lock");
    let by_package = only(&["linux-image-6.12.90+deb13-cloud-amd64"]);
    assert_eq!(
        mirror
            .update(&lock, Refresh::Only(&by_package), &request)
            .expect("a lock"),
        new
    );
    insta::assert_snapshot!(lock.diff(&new), @r"
    kernel 6.12-cloud: linux-image-6.12.118+deb13-cloud-amd64 6.12.90-1 → 6.12.118-1 (trixie)
    1 changed; download 121 B (+2 B); as of 2026-11-29 (was 2026-11-21)
    ");
    let news = mirror.fetcher().news(&lock, &request).expect("news");
    let kernels: String = news.kernels.iter().map(|k| format!("{k}\n")).collect();
    insta::assert_snapshot!(format!("{}\n{kernels}", news.packages), @r"
    a 1 → 2 (trixie)
    kernel 6.12-cloud: linux-image-6.12.118+deb13-cloud-amd64 6.12.90-1 → 6.12.118-1 (trixie)
    kernel 6.18-cloud: linux-image-6.18.2+deb13-cloud-amd64 6.18.1-1 → 6.18.2-1 (trixie)
    3 changed; download 121 B (+2 B); as of 2026-11-29 (was 2026-11-21)
    kernel 6.12-cloud: 6.12.90-1; 6.12.118-1 is out; the newest of its flavour is 6.18.2-1 (trixie)
    kernel 6.18-cloud: 6.18.1-1; 6.18.2-1 is out; the newest of its flavour is 6.18.2-1 (trixie)
    ");
    // Another wish for a kernel is met even when nothing is to be refreshed.
    request
        .kernels
        .get_mut("6.18-cloud")
        .expect("there")
        .version = "6.12".to_owned();
    let new = mirror
        .update(&lock, Refresh::Nothing, &request)
        .expect("a lock");
    insta::assert_snapshot!(lock.diff(&new), @r"
    kernel 6.18-cloud: linux-image-6.12.118+deb13-cloud-amd64 6.18.1-1 → 6.12.118-1 (trixie, OLDER than before)
    1 changed; download 123 B (+4 B); as of 2026-11-29 (was 2026-11-21)
    ");
}

#[test]
fn packages_that_are_gone_are_resolved_anew_unless_locked() {
    let (mirror, request, lock) = moved_on();
    let fetch = |locked| {
        mirror
            .fetcher()
            .fetch_or_renew(&lock, &[Role::System], &request, locked)
    };
    let fetched = fetch(false).expect("all is there");
    assert_eq!(
        (fetched.lock, fetched.renewed, fetched.files.len()),
        (lock.clone(), None, 6)
    );
    for name in ["ssh", "sftp"] {
        mirror
            .server
            .remove(&format!("/debian/pool/main/{name}_1_amd64.deb"));
    }
    std::fs::remove_dir_all(mirror.cache().root()).expect("a cache");
    let error = fetch(true).expect_err("gone");
    assert!(
        matches!(&error, Error::Gone { packages } if packages.len() == 2),
        "{error}"
    );
    let fetched = fetch(false).expect("newer ones are there");
    insta::assert_snapshot!(fetched.renewed.expect("a diff"), @r"
    sftp 1 → 2 (trixie)
    ssh 1 → 2 (trixie)
    ssh-common 1 → 2 (trixie)
    3 changed; download 107 B (+0 B); as of 2026-11-29 (was 2026-11-21)
    ");
    assert!(fetched.files.iter().all(|(package, path)| {
        package.role == Role::System && path.metadata().expect("a file").len() == package.size
    }));
    // The index still names a file that is nowhere.
    mirror.server.remove("/debian/pool/main/ssh_2_amd64.deb");
    std::fs::remove_dir_all(mirror.cache().root()).expect("a cache");
    assert!(matches!(fetch(false), Err(Error::Gone { .. })));
}
