//! Mirrors from apt's configuration.

use packages::{Error, Sources};

/// The archives that files under `etc/apt` lead to, one a line, then what was left out.
fn found(files: &[(&str, &str)]) -> Result<String, Error> {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(root.path().join("etc/apt/sources.list.d")).expect("folders");
    for (name, text) in files {
        std::fs::write(root.path().join("etc/apt").join(name), text).expect("a file");
    }
    let sources = Sources::from_host(root.path())?;
    Ok(show(&sources))
}

fn show(sources: &Sources) -> String {
    let mut out = String::new();
    for archive in sources.archives() {
        out += &format!("{:?} {}", archive.kind, archive.url);
        if let Some(keyring) = &archive.keyring {
            out += &format!(" [{}]", keyring.display());
        }
        out += "\n";
    }
    for ignored in sources.ignored() {
        out += &format!("- {ignored}\n");
    }
    out
}

#[test]
fn both_formats_are_read_and_only_debian_is_used() {
    let list = "# deb http://commented.example/debian bookworm main\n\
        deb [arch=amd64 signed-by=/usr/share/keyrings/own.gpg] http://mirror.example/debian/ bookworm main contrib # own\n\
        deb-src http://mirror.example/debian bookworm main\n\
        deb https://packages.example/apt cloud-sdk-bookworm main\n\
        deb http://security.example trixie-security main\n";
    let sources = "Types: deb\n# http://snapshot.example/archive/debian/20250520T000000Z\nURIs: http://cdn.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
        Types: deb deb-src\nURIs: http://cdn.example/debian-security http://two.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
        Enabled: no\nTypes: deb\nURIs: http://disabled.example/debian\nSuites: trixie\nComponents: main\n";
    let third =
        "Types: deb\nURIs: https://node.example/node_20.x\nSuites: nodistro\nComponents: main\n";
    let docker = "deb [arch=amd64] https://docker.example/linux/debian bookworm stable\n";
    let files = [
        ("sources.list", list),
        ("sources.list.d/debian.sources", sources),
        ("sources.list.d/node.sources", third),
        ("sources.list.d/docker.list", docker),
        (
            "sources.list.d/old.list.save",
            "deb http://saved.example/debian trixie main\n",
        ),
    ];
    insta::assert_snapshot!(found(&files).expect("archives"));
}

#[test]
fn the_security_archive_is_the_neighbour_unless_it_is_named() {
    let mirrors = |urls: &[&str]| {
        let urls: Vec<String> = urls.iter().map(|u| (*u).to_owned()).collect();
        Sources::from_mirrors(&urls).map(|sources| show(&sources))
    };
    insta::assert_snapshot!(mirrors(&["http://m.example/debian/"]).expect("one"), @r"
    Main http://m.example/debian/
    Security http://m.example/debian-security
    ");
    insta::assert_snapshot!(mirrors(&["https://m.example/a/mirror", "http://s.example:81/debian-security"]).expect("two"), @r"
    Main https://m.example/a/mirror
    Security http://s.example:81/debian-security
    ");
    insta::assert_snapshot!(mirrors(&["http://m.example/archive/debian/20261101T000000Z"]).expect("a snapshot"), @r"
    Main http://m.example/archive/debian/20261101T000000Z
    Security http://m.example/archive/debian-security/20261101T000000Z
    ");
    insta::assert_snapshot!(mirrors(&["http://m.example/debian-security"]).expect_err("half"), @"no Debian archive found in --mirror, which names a security archive only: give one with --mirror URL (the folder that holds `dists` and `pool`)");
    insta::assert_snapshot!(mirrors(&["ftp://m.example/debian"]).expect_err("ftp"), @"mirror `ftp://m.example/debian`: only http and https are supported");
    insta::assert_snapshot!(mirrors(&["m.example/debian"]).expect_err("no scheme"), @"mirror `m.example/debian`: not a URL such as http://HOST/debian");
    insta::assert_snapshot!(mirrors(&["http://user:secret@/debian"]).expect_err("no host"), @"mirror `http://…@/debian`: invalid authority");
}

#[test]
fn a_host_without_debian_is_told_what_to_do() {
    insta::assert_snapshot!(found(&[]).expect_err("nothing"), @"no Debian archive found in /etc/apt/sources.list and /etc/apt/sources.list.d: give one with --mirror URL (the folder that holds `dists` and `pool`)");
    let ubuntu =
        "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble\nComponents: main\n";
    insta::assert_snapshot!(found(&[("sources.list.d/ubuntu.sources", ubuntu)]).expect_err("ubuntu"), @"no Debian archive found in /etc/apt/sources.list and /etc/apt/sources.list.d: give one with --mirror URL (the folder that holds `dists` and `pool`); looked at and left out: /etc/apt/sources.list.d/ubuntu.sources: http://archive.example/ubuntu/ (its path ends neither in /debian nor in /debian-security)");
    let cd = "deb cdrom:[Debian]/ trixie main\n";
    insta::assert_snapshot!(found(&[("sources.list", cd)]).expect_err("a CD"), @"no Debian archive found in /etc/apt/sources.list and /etc/apt/sources.list.d: give one with --mirror URL (the folder that holds `dists` and `pool`); looked at and left out: /etc/apt/sources.list: cdrom:[Debian]/ (not a URL such as http://HOST/debian)");
}

#[test]
fn broken_files_are_named_with_the_line() {
    let broken = |name: &str, text: &str| found(&[(name, text)]).expect_err("broken").to_string();
    insta::assert_snapshot!(broken("sources.list", "\ndeb http://m.example/debian\n"), @"/etc/apt/sources.list, line 2: a source needs a URI and a suite");
    insta::assert_snapshot!(broken("sources.list", "debb http://m.example/debian trixie main\n"), @"/etc/apt/sources.list, line 1: `debb` is no type of source (deb, deb-src)");
    insta::assert_snapshot!(broken("sources.list", "deb [arch=amd64 http://m.example/debian trixie main\n"), @"/etc/apt/sources.list, line 1: `[` without `]`");
    insta::assert_snapshot!(broken("sources.list.d/a.sources", "\n\nTypes: deb\nURIs: http://m.example/debian\n"), @"/etc/apt/sources.list.d/a.sources, line 3: a source needs URIs and Suites");
    insta::assert_snapshot!(broken("sources.list.d/a.sources", "Types: deb\nnonsense\n"), @"/etc/apt/sources.list.d/a.sources, line 2: `nonsense` is neither a field nor a continuation");
}
