//! From a signed archive to a lock.

use packages::{Error, Flavour, KernelRequest, Request};

use crate::archive::{DAY, Mirror, names, pack, request};
use crate::download::fetcher;
use crate::server::Fault;
use crate::signing::{Key, clear_sign};

/// Resolves against one suite of these packages.
fn resolved(packages: &[&str], request: &Request) -> Result<Vec<String>, Error> {
    let mirror = Mirror::new();
    mirror.publish("trixie", DAY, packages);
    mirror.resolve(request).map(|lock| names(&lock))
}

#[track_caller]
fn refusal(packages: &[&str], request: &Request) -> String {
    resolved(packages, request)
        .expect_err("there is no answer")
        .to_string()
}

#[test]
fn dependencies_and_essential_packages_come_by_themselves() {
    let packages = [
        "shell 1\nDepends: libc (>= 2)",
        "libc 2\nPre-Depends: gcc-base",
        "gcc-base 14",
        "base 13\nEssential: yes\nDepends: awk",
        "gawk 5\nProvides: awk\nPriority: optional",
        "mawk 1\nProvides: awk\nPriority: required",
        "unrelated 1",
    ];
    let found = resolved(&packages, &request(&["shell"])).expect("an answer");
    assert_eq!(
        found,
        ["base 13", "gcc-base 14", "libc 2", "mawk 1", "shell 1"]
    );
}

#[test]
fn the_first_alternative_that_exists_is_taken_unless_another_is_there_already() {
    let packages = ["a 1\nDepends: none | y | x", "x 1", "y 1"];
    assert_eq!(
        resolved(&packages, &request(&["a"])).expect("an answer"),
        ["a 1", "y 1"]
    );
    assert_eq!(
        resolved(&packages, &request(&["a", "x"])).expect("an answer"),
        ["a 1", "x 1"]
    );
    let packages = ["a 1\nDepends: y (>= 2) | x", "x 1", "y 1"];
    assert_eq!(
        resolved(&packages, &request(&["a"])).expect("an answer"),
        ["a 1", "x 1"]
    );
}

#[test]
fn versions_that_are_provided_count_and_missing_ones_meet_no_bound() {
    let packages = [
        "a 1\nDepends: lib (>= 2)",
        "p 1\nProvides: lib",
        "q 1\nProvides: lib (= 2)",
    ];
    assert_eq!(
        resolved(&packages, &request(&["a", "p"])).expect("an answer"),
        ["a 1", "p 1", "q 1"]
    );
}

#[test]
fn excluded_packages_count_as_installed_and_bring_nothing() {
    let packages = [
        "a 1\nDepends: debconf (>= 0.5) | debconf-2.0, c",
        "c 1\nDepends: debconf-2.0",
        "debconf 1\nProvides: debconf-2.0\nDepends: perl",
        "perl 5\nEssential: yes",
    ];
    let mut request = request(&["a"]);
    for name in ["debconf", "perl"] {
        request
            .exclude
            .insert(name.to_owned(), "only for scripts".to_owned());
    }
    assert_eq!(
        resolved(&packages, &request).expect("an answer"),
        ["a 1", "c 1"]
    );
    request.install.push("perl".to_owned());
    insta::assert_snapshot!(refusal(&packages, &request), @"package `perl` is asked for and excluded at the same time (excluded because: only for scripts)");
}

#[test]
fn what_cannot_be_is_refused_with_the_chain_of_who_asked() {
    let packages = ["a 1\nDepends: b", "b 1\nDepends: c (>= 3), none", "c 2"];
    insta::assert_snapshot!(refusal(&packages, &request(&["a"])), @r"
    the packages do not fit together:
      - Depends: c (>= 3), but there is c 2 in trixie; asked by b 1 ← a 1 (asked for)
      - Depends: none, but there is no none; asked by b 1 ← a 1 (asked for)
    ");
    let packages = [
        "a 1\nDepends: b",
        "b 1\nConflicts: mail",
        "c 1\nProvides: mail",
        "d 2\nBreaks: a (<< 2)",
    ];
    insta::assert_snapshot!(refusal(&packages, &request(&["a", "c", "d"])), @r"
    the packages do not fit together:
      - Breaks: a (<< 2) with a 1 (asked for); asked by d 2 (asked for)
      - Conflicts: mail with c 1 (asked for); asked by b 1 ← a 1 (asked for)
    ");
}

#[test]
fn a_package_may_conflict_with_what_it_provides_itself() {
    let packages = ["a 1\nProvides: mail\nConflicts: mail\nReplaces: mail"];
    assert_eq!(
        resolved(&packages, &request(&["a"])).expect("an answer"),
        ["a 1"]
    );
}

#[test]
fn unknown_packages_are_refused_with_a_hint() {
    let packages = ["openssh-server 1", "postfix 1\nProvides: mail"];
    insta::assert_snapshot!(refusal(&packages, &request(&["openssh-sever"])), @"package `openssh-sever`: not in trixie (`openssh-server` is)");
    insta::assert_snapshot!(refusal(&packages, &request(&["mail"])), @"package `mail`: not in trixie (it is a virtual package, provided by postfix: name one of them)");
    insta::assert_snapshot!(refusal(&packages, &request(&["Bad Name"])), @"package `Bad Name`: not a name of a Debian package");
    let mut wrong = request(&["postfix"]);
    wrong.exclude.insert("no-such".to_owned(), "why".to_owned());
    insta::assert_snapshot!(refusal(&packages, &wrong), @"package `no-such` is excluded, but trixie have no such package");
}

/// Three suites: security is newer than trixie, backports newest of all.
fn three_suites() -> (Mirror, Request) {
    let mirror = Mirror::new();
    mirror.publish(
        "trixie",
        DAY,
        &["ssh 1\nDepends: lib", "lib 1", "tool 1\nDepends: lib"],
    );
    mirror.publish(
        "trixie-security",
        "Sun, 22 Nov 2026 19:58:57 UTC",
        &["ssh 1+deb13u1\nDepends: lib"],
    );
    mirror.publish(
        "trixie-backports",
        "Mon, 23 Nov 2026 02:09:33 UTC",
        &["ssh 2~bpo\nDepends: lib (>= 2~)", "lib 2~bpo", "only 1~bpo"],
    );
    let mut request = request(&["ssh", "tool"]);
    request.suites = ["trixie", "trixie-security", "trixie-backports"]
        .map(str::to_owned)
        .to_vec();
    (mirror, request)
}

#[test]
fn security_wins_by_version_and_backports_only_when_pinned() {
    let (mirror, mut request) = three_suites();
    let lock = mirror.resolve(&request).expect("an answer");
    assert_eq!(names(&lock), ["lib 1", "ssh 1+deb13u1", "tool 1"]);
    assert_eq!(lock.packages[1].suite, "trixie-security");
    assert_eq!(lock.date, 1_795_399_773, "of the newest InRelease");
    // What a pinned package needs comes from its suite where no other has it.
    request
        .pins
        .insert("ssh".to_owned(), "trixie-backports".to_owned());
    let error = mirror.resolve(&Request {
        install: vec!["tool".into(), "ssh".into(), "lib".into()],
        ..request.clone()
    });
    assert!(
        matches!(error, Err(Error::Unresolved(_))),
        "lib 1 was asked for first: {error:?}"
    );
    request.install = vec!["ssh".to_owned()];
    assert_eq!(
        names(&mirror.resolve(&request).expect("an answer")),
        ["lib 2~bpo", "ssh 2~bpo"]
    );
    request.install = vec!["only".to_owned()];
    let error = mirror
        .resolve(&request)
        .expect_err("it is in backports only");
    insta::assert_snapshot!(error, @"package `only`: not in trixie, trixie-security, trixie-backports (it is in trixie-backports: pin it to that suite)");
}

const KERNELS: [&str; 13] = [
    "linux-image-6.18.12+deb13-cloud-amd64 6.18.12-1",
    "linux-image-6.18.15+deb13-cloud-amd64 6.18.15-1\nDepends: kmod, linux-base-6.18.15+deb13-cloud-amd64 (= 6.18.15-1)",
    "linux-image-6.18.15+deb13-amd64 6.18.15-1",
    "linux-image-6.18.15+deb13-rt-amd64 6.18.15-1",
    "linux-image-6.180.1+deb13-cloud-amd64 6.180.1-1",
    "linux-image-7.3.5+deb13-cloud-amd64 7.3.5-1\nDepends: linux-binary-7.3.5+deb13-cloud-amd64 (= 7.3.5-1)",
    "linux-image-7.3.4+deb13-cloud-amd64 7.3.4-1\nDepends: linux-initramfs-tool, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)",
    "linux-binary-7.3.4+deb13-cloud-amd64 7.3.4-1\nDepends: linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)",
    "linux-modules-7.3.4+deb13-cloud-amd64 7.3.4-1",
    "linux-base-7.3.4+deb13-cloud-amd64 7.3.4-1",
    "linux-image-cloud-amd64 7.3.5-1",
    "linux-image-amd64 7.3.5-1",
    "kmod 34",
];

fn kernel(version: &str, flavour: Flavour) -> Request {
    let mut request = request(&[]);
    let suites = vec!["trixie-backports".to_owned()];
    let kernel = KernelRequest {
        suites,
        version: version.to_owned(),
        flavour,
    };
    request.kernels.insert("k".to_owned(), kernel);
    request
}

#[test]
fn kernels_are_found_by_name_with_their_parts_and_without_a_resolver() {
    let mirror = Mirror::new();
    mirror.publish("trixie", DAY, &["linux-image-9.9+deb13-cloud-amd64 9.9-1"]);
    mirror.publish("trixie-backports", DAY, &KERNELS);
    let find = |version, flavour| {
        mirror
            .resolve(&kernel(version, flavour))
            .map(|lock| names(&lock))
    };
    // linux-base of 6.18.15 is gone, which matters to resolvers only.
    for version in ["6.18", "6.18.15"] {
        let found = find(version, Flavour::Cloud).expect("a kernel");
        assert_eq!(
            found,
            ["kernel:k linux-image-6.18.15+deb13-cloud-amd64 6.18.15-1"]
        );
    }
    let found = find("6.18", Flavour::Generic).expect("a kernel");
    assert_eq!(
        found,
        ["kernel:k linux-image-6.18.15+deb13-amd64 6.18.15-1"]
    );
    // The newest is 7.3.5, whose image part is missing, so it is no kernel.
    let found = find("", Flavour::Cloud).expect("a kernel");
    let parts = ["base", "binary", "image", "modules"];
    assert_eq!(
        found,
        parts.map(|part| format!("kernel:k linux-{part}-7.3.4+deb13-cloud-amd64 7.3.4-1"))
    );
    insta::assert_snapshot!(find("7.3.5", Flavour::Cloud).expect_err("it is incomplete"), @"kernel `k`: no complete linux-image-7.3.5*-cloud-amd64 in trixie-backports: linux-image-7.3.5+deb13-cloud-amd64 needs linux-binary-7.3.5+deb13-cloud-amd64, which is gone");
    insta::assert_snapshot!(find("5.10", Flavour::Cloud).expect_err("there is none"), @"kernel `k`: no linux-image-5.10*-cloud-amd64 in trixie-backports");
}

#[test]
fn build_packages_come_alone_and_must_fit_the_system() {
    let packages = [
        "libc 2",
        "libc-dev 2\nDepends: libc (= 2), linux-libc-dev, make",
        "make 4",
    ];
    let mut wanted = request(&["libc"]);
    wanted.build = vec!["libc-dev".to_owned()];
    assert_eq!(
        resolved(&packages, &wanted).expect("an answer"),
        ["libc 2", "build libc-dev 2"]
    );
    let packages = ["libc 2", "libc-dev 3\nDepends: libc (= 3)"];
    insta::assert_snapshot!(refusal(&packages, &wanted), @r"
    the packages do not fit together:
      - build package libc-dev 3 needs libc (= 3), which is not the selected version
    ");
}

// The way of trust.

fn published() -> Mirror {
    let mirror = Mirror::new();
    mirror.publish("trixie", DAY, &["a 1"]);
    mirror
}

const IN_RELEASE: &str = "/debian/dists/trixie/InRelease";

#[track_caller]
fn signature_refused(mirror: &Mirror, words: &str) {
    let error = mirror
        .resolve(&request(&["a"]))
        .expect_err("not to be trusted");
    let text = error.to_string();
    assert!(matches!(error, Error::Signature { .. }), "{text}");
    assert!(text.contains(words) && text.contains(IN_RELEASE), "{text}");
}

#[test]
fn only_what_the_keyring_signed_is_believed() {
    let mirror = published();
    mirror.resolve(&request(&["a"])).expect("a good signature");
    let packed = pack(&mirror.index("/debian", &["a 1"]));
    let text = Mirror::release("trixie", DAY, &packed);
    let good = mirror.key.clear_sign(&text);

    mirror
        .server
        .put(IN_RELEASE, good.replace("Origin: Debian", "Origin: Debiam"));
    signature_refused(&mirror, "changed after it was signed");
    mirror.server.put(IN_RELEASE, Key::new(2).clear_sign(&text));
    signature_refused(&mirror, "public key");
    mirror.server.put(IN_RELEASE, text.clone());
    signature_refused(&mirror, "does not begin with a clear-signed message");
    mirror
        .server
        .put(IN_RELEASE, format!("Origin: Debian\n{good}"));
    signature_refused(&mirror, "does not begin");
    mirror
        .server
        .put(IN_RELEASE, format!("{good}Origin: Debian\n"));
    signature_refused(&mirror, "text follows the signature");
    let (head, _) = good.split_at(good.len() / 2);
    mirror.server.put(IN_RELEASE, head);
    signature_refused(&mirror, "ends");

    // Two signatures, one by a key that is not in the keyring: usual between releases.
    mirror
        .server
        .put(IN_RELEASE, clear_sign(&[&Key::new(2), &mirror.key], &text));
    mirror
        .resolve(&request(&["a"]))
        .expect("one good signature is enough");
    std::fs::write(mirror.keyring(), Key::expired(1).keyring()).expect("a keyring");
    mirror.server.put(IN_RELEASE, good);
    signature_refused(&mirror, "expired");
    std::fs::remove_file(mirror.keyring()).expect("a keyring");
    let error = mirror.resolve(&request(&["a"])).expect_err("no keyring");
    assert!(
        error.to_string().contains("debian-archive-keyring"),
        "{error}"
    );
}

#[test]
fn an_endless_file_is_not_read_to_its_end() {
    let mirror = published();
    mirror.server.put(IN_RELEASE, vec![b'x'; 17 << 20]);
    let error = mirror.resolve(&request(&["a"])).expect_err("too large");
    assert!(
        matches!(
            error,
            Error::TooLarge {
                limit: 16_777_216,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn dash_escaped_lines_are_what_was_signed() {
    let mirror = published();
    let packed = pack(&mirror.index("/debian", &["a 1"]));
    let text =
        Mirror::release("trixie", DAY, &packed).replace("SHA256:", "Description: x\n -y\nSHA256:");
    mirror.server.put(IN_RELEASE, mirror.key.clear_sign(&text));
    mirror.resolve(&request(&["a"])).expect("a good signature");
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let mirror = published();
    let other = pack(&mirror.index("/debian", &["a 1\nDepends: evil"]));
    let signed = pack(&mirror.index("/debian", &["a 1"]));
    let digest = packages::Digest::of(&signed);
    let folder = "/debian/dists/trixie/main/binary-amd64";
    mirror
        .server
        .put(&format!("{folder}/by-hash/SHA256/{digest}"), other.clone());
    mirror.server.put(&format!("{folder}/Packages.xz"), other);
    let error = mirror.resolve(&request(&["a"])).expect_err("another index");
    assert!(
        matches!(error, Error::Mismatch { .. } | Error::WrongSize { .. }),
        "{error}"
    );
    // The name by hash is gone, the plain one is right.
    mirror
        .server
        .remove(&format!("{folder}/by-hash/SHA256/{digest}"));
    mirror.server.put(&format!("{folder}/Packages.xz"), signed);
    mirror.resolve(&request(&["a"])).expect("by the plain name");
}

#[test]
fn other_suites_and_other_projects_are_not_taken_for_the_one_asked_for() {
    let mirror = published();
    let packed = pack(&mirror.index("/debian", &["a 1"]));
    let text = Mirror::release("bookworm", DAY, &packed);
    mirror.server.put(IN_RELEASE, mirror.key.clear_sign(&text));
    let error = mirror.resolve(&request(&["a"])).expect_err("another suite");
    let Error::WrongSuite {
        codename, wanted, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((codename.as_str(), wanted.as_str()), ("bookworm", "trixie"));
    let text = Mirror::release("trixie", DAY, &packed).replace("Origin: Debian", "Origin: Docker");
    mirror.server.put(IN_RELEASE, mirror.key.clear_sign(&text));
    let error = mirror
        .resolve(&request(&["a"]))
        .expect_err("another project");
    assert!(error.to_string().contains("no mirror has it"), "{error}");
    mirror.server.remove(IN_RELEASE);
    let error = mirror.resolve(&request(&["a"])).expect_err("no such suite");
    let text = error.to_string();
    assert!(
        text.contains("suite `trixie`: no mirror has it") && text.contains(IN_RELEASE),
        "{text}"
    );
}

#[test]
fn an_index_past_its_date_is_a_warning_or_if_asked_an_error() {
    let mirror = published();
    let packed = pack(&mirror.index("/debian", &["a 1"]));
    let text = Mirror::release("trixie", "Sat, 04 Jan 2025 09:15:44 UTC", &packed);
    let text = text.replace(
        "Acquire",
        "Valid-Until: Sat, 11 Jan 2025 09:15:44 UTC\nAcquire",
    );
    mirror.server.put(IN_RELEASE, mirror.key.clear_sign(&text));
    mirror.resolve(&request(&["a"])).expect("a warning");
    let mut strict = mirror.fetcher();
    strict.options.strict_dates = true;
    let error = strict.resolve(&request(&["a"])).expect_err("expired");
    assert!(
        matches!(error, Error::Expired { days: 600.., .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("2025-01-11 09:15:44 UTC"),
        "{error}"
    );
}

#[test]
fn a_mirror_that_is_down_is_passed_over() {
    let mirror = published();
    let down = format!("http://127.0.0.1:{}/debian", crate::server::closed_port());
    let sources = packages::Sources::from_mirrors(&[down, mirror.server.url("/debian")])
        .expect("two")
        .with_keyring(&mirror.keyring());
    let lock = fetcher(sources, mirror.cache()).resolve(&request(&["a"]));
    assert_eq!(names(&lock.expect("the second")), ["a 1"]);
    mirror.server.always(IN_RELEASE, Fault::Status(500));
    let error = mirror.resolve(&request(&["a"])).expect_err("down");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn an_architecture_that_the_suite_lacks_is_named() {
    let mirror = published();
    let request = Request {
        architecture: "riscv64".to_owned(),
        ..request(&["a"])
    };
    let error = mirror.resolve(&request).expect_err("not listed");
    assert!(
        error
            .to_string()
            .contains("main/binary-riscv64/Packages.xz"),
        "{error}"
    );
}
