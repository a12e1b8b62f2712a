//! Every parser of outside bytes, for a short while each, with random and with mutated bytes.

use std::time::{Duration, Instant};

/// xorshift64*: deterministic, so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Calls `target` for a second, or for `$FUZZ_SECONDS`; `seeds` are well-formed inputs.
fn run(name: &str, target: fn(&[u8]), seeds: &[&str]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
    seeds.iter().for_each(|seed| target(seed.as_bytes()));
    target(b"");
    let mut rounds = 0;
    while Instant::now() < end {
        let mut bytes = if random.below(8) == 0 {
            (0..random.below(200))
                .map(|_| random.next() as u8)
                .collect()
        } else {
            seeds[random.below(seeds.len())].as_bytes().to_vec()
        };
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &mut random, seeds);
        }
        let result = std::panic::catch_unwind(|| target(&bytes));
        assert!(
            result.is_ok(),
            "{name} panics at {:?}",
            String::from_utf8_lossy(&bytes)
        );
        rounds += 1;
    }
    assert!(rounds > 100, "{name}: only {rounds} rounds");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random, seeds: &[&str]) {
    const TOKENS: [&str; 14] = [
        "\n\n",
        "\n ",
        ":",
        ": ",
        "-",
        "~",
        "|",
        "(",
        ")",
        "99999999999999999999",
        "\"",
        "[",
        "#",
        "é",
    ];
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => {
            let end = (at + random.below(20)).min(bytes.len());
            bytes.drain(at..end);
        }
        2 => {
            let token = TOKENS[random.below(TOKENS.len())].bytes();
            bytes.splice(at..at, token);
        }
        3 => bytes.truncate(at),
        4 => {
            let other = seeds[random.below(seeds.len())].as_bytes();
            let from = random.below(other.len());
            bytes.splice(at..at, other[from..].iter().copied().take(80));
        }
        _ => {
            let piece: Vec<u8> = bytes[at..].iter().copied().take(30).collect();
            bytes.splice(at..at, piece);
        }
    }
}

const PACKAGES: &str = "Package: bash\nSource: bash (5.2)\nVersion: 5.2.37-2+b10\nArchitecture: amd64\nEssential: yes\nPre-Depends: libc6 (>= 2.38), libtinfo6 (>= 6)\nDepends: base-files (>= 2.1.12), debianutils (>= 5.6-0.1) | x:any\nProvides: sh, y (= 1)\nFilename: pool/main/b/bash/bash_5.2.37-2_amd64.deb\nSize: 1500792\nSHA256: 2fd7b04f1b7caa29c4e683f5216e6af354a41e3cdcf6e75394d7cda680f9ab82\n\nPackage: dash\nVersion: 0.5.12-12\nDescription: x\n more\n";
const RELEASE: &str = "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nValid-Until: Sat, 28 Nov 2026 09:15:44 UTC\nAcquire-By-Hash: yes\nSHA256:\n 2fd7b04f1b7caa29c4e683f5216e6af354a41e3cdcf6e75394d7cda680f9ab82 9679304 main/binary-amd64/Packages.xz\n";
const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: stable\n- -dash\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nSHA256:\n-----BEGIN PGP SIGNATURE-----\n\niHUEABYK\n=8YVe\n-----END PGP SIGNATURE-----\n";

#[test]
fn deb822() {
    run("deb822", packages::deb822::fuzz, &[PACKAGES, RELEASE]);
}

#[test]
fn packages_file() {
    run("index", packages::index::fuzz, &[PACKAGES]);
}

#[test]
fn release_file() {
    run("release", packages::release::fuzz, &[RELEASE, SIGNED]);
}

#[test]
fn relation() {
    run(
        "relation",
        packages::relation::fuzz,
        &["a (>= 1:2-3) | b:any, c (<< 1~), d", "x (= 1)"],
    );
}

#[test]
fn version() {
    run(
        "version",
        packages::version::fuzz,
        &["1:2.3-4\n1:2.3-5\n0", "1~rc1\n1\n1+b1", "007\n7\n7a"],
    );
}

#[test]
fn lock_file() {
    run(
        "lock",
        packages::lock::fuzz,
        &[include_str!("../data/small.lock")],
    );
}

#[test]
fn sources_files() {
    let seeds = [
        "deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example/debian trixie main # c\n",
        "Types: deb\n# old\nURIs: http://mirror.example/debian https://user:pw@b.example/debian-security\nSuites: trixie\nComponents: main\nSigned-By: /k.gpg\n",
    ];
    run("sources", packages::sources::fuzz, &seeds);
}
