//! Comparison of versions against dpkg.

use std::cmp::Ordering;
use std::process::Command;

use packages::version::compare;
use proptest::prelude::*;

/// What dpkg says about two versions.
fn dpkg(a: &str, b: &str) -> Ordering {
    let holds = |operator: &str| {
        let status = Command::new("dpkg")
            .args(["--compare-versions", a, operator, b])
            .stderr(std::process::Stdio::null())
            .status()
            .expect("dpkg is installed (apt-get install dpkg)");
        status.success()
    };
    match (holds("lt"), holds("eq")) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Equal,
        _ => Ordering::Greater,
    }
}

/// Versions that Debian has or had, and some that only a test would invent.
const CORPUS: [&str; 43] = [
    "0",
    "0.0",
    "00",
    "1",
    "1-0",
    "1-1",
    "1.0",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1+b10",
    "1.0-1~bpo13+1",
    "1.0-1~deb13u1",
    "1.0-1+deb13u1",
    "1.0~rc1-1",
    "1.0~~",
    "1.0~",
    "1.0a",
    "1.0.",
    "1.0+",
    "0:1.0",
    "1:0",
    "1:1.0",
    "2:9.1.1230-2+deb13u2",
    "1:10.0p1-7+deb13u1",
    "1:10.0p1-7",
    "6.18.15-1~bpo13+1",
    "6.12.118-1",
    "6.12.90-2",
    "7.3.4-1~bpo13+1",
    "257.13-1~deb13u1",
    "257~rc1-1",
    "2.41-12+deb13u5",
    "2.41-12",
    "20250419+deb13u1",
    "1:4.16.0-2+really2.41.5-0+deb13u1",
    "0.5.12-12",
    "3.152",
    "1.2.3-4-5",
    "1.2.3-4.5",
    "9.9999999999999999999999",
    "9.00000000000000001",
    "1a.b+c~d",
    "1.a~0",
];

#[test]
fn the_corpus_sorts_as_dpkg_sorts_it() {
    for (i, a) in CORPUS.iter().enumerate() {
        // Every pair both ways would be 3872 processes: neighbours at four distances.
        for step in [1, 3, 7, 19] {
            let b = CORPUS[(i + step) % CORPUS.len()];
            assert_eq!(compare(a, b), dpkg(a, b), "{a} {b}");
            assert_eq!(compare(b, a), compare(a, b).reverse(), "{a} {b}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Short versions from few characters, so that many pairs are nearly the same.
    #[test]
    fn random_versions_sort_as_dpkg_sorts_them(
        a in "([0-2]:)?[0-2][01a~.+]{0,5}(-[01a~.+]{1,3})?",
        b in "([0-2]:)?[0-2][01a~.+]{0,5}(-[01a~.+]{1,3})?",
    ) {
        prop_assert_eq!(compare(&a, &b), dpkg(&a, &b), "{} {}", a, b);
    }
}
