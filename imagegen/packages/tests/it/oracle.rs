//! The resolver against apt itself, on the real archive: needs apt-get and a network, so it is
//! behind the feature `oracle`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use packages::{Cache, Fetcher, Kind, Request, Sources};

use crate::download::silent;

/// Runs apt-get with private folders, as any user.
fn apt_get(config: &Path, arguments: &[&str]) -> String {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("APT_CONFIG", config)
        .env("LC_ALL", "C")
        .output()
        .expect("apt-get is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "apt-get {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What apt would download: SHA-256 → file name.
fn apt(
    folder: &Path,
    sources: &Sources,
    request: &Request,
    seeds: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    for sub in [
        "etc/preferences.d",
        "state/lists/partial",
        "cache/archives/partial",
    ] {
        std::fs::create_dir_all(folder.join(sub)).expect("folders");
    }
    std::fs::write(folder.join("status"), "").expect("a file");
    let mut list = String::new();
    for suite in &request.suites {
        for archive in sources
            .archives()
            .iter()
            .filter(|a| a.kind == Kind::of_suite(suite))
        {
            list += &format!(
                "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {suite} main\n",
                archive.url
            );
        }
    }
    std::fs::write(folder.join("etc/sources.list"), list).expect("a file");
    let config = folder.join("apt.conf");
    let text = format!(
        "Dir \"{0}\"; Dir::Etc \"etc\"; Dir::Etc::sourceparts \"/dev/null\"; Dir::Etc::trusted \"/dev/null\";\n\
         Dir::Etc::trustedparts \"/dev/null\"; Dir::Etc::parts \"/dev/null\"; Dir::State \"state\"; Dir::State::status \"{0}/status\";\n\
         Dir::Cache \"cache\"; APT::Sandbox::User \"\"; Debug::NoLocking \"1\"; APT::Install-Recommends \"0\";\n\
         APT::Architecture \"amd64\"; APT::Architectures \"amd64\"; Acquire::Languages \"none\"; Acquire::ForceHash \"SHA256\";\n",
        folder.display()
    );
    std::fs::write(&config, text).expect("a file");
    apt_get(&config, &["-q", "update"]);
    let mut arguments = vec!["-q", "-y", "--print-uris", "install"];
    arguments.extend(seeds.iter().map(String::as_str));
    apt_get(&config, &arguments)
        .lines()
        .filter_map(|line| {
            // 'URL' FILE SIZE SHA256:HASH
            let mut words = line.strip_prefix('\'')?.split_whitespace();
            let (_, file, _, hash) = (words.next()?, words.next()?, words.next()?, words.next()?);
            Some((hash.strip_prefix("SHA256:")?.to_owned(), file.to_owned()))
        })
        .collect()
}

#[test]
fn the_resolver_finds_what_apt_finds() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut request: Request =
        toml::from_str(include_str!("../data/request.toml")).expect("the request");
    // apt cannot take packages as given.
    request.exclude.clear();
    request.build.clear();
    request.kernels.clear();
    let sources = Sources::discover(&[]).expect("this host has Debian sources");
    let cache = Cache::at(folder.path().join("larder"));
    let lock = Fetcher::with_sources(sources.clone(), cache, silent())
        .resolve(&request)
        .expect("our answer");
    let ours: BTreeMap<String, String> = lock
        .system()
        .map(|p| (p.sha256.to_string(), format!("{} {}", p.name, p.version)))
        .collect();
    // With an empty status file apt does not think of Essential packages by itself.
    let mut seeds: BTreeSet<String> = request.install.iter().cloned().collect();
    let essential = [
        "base-files",
        "base-passwd",
        "bash",
        "bsdutils",
        "coreutils",
        "dash",
        "debianutils",
        "diffutils",
        "dpkg",
        "findutils",
        "grep",
        "gzip",
        "hostname",
        "init-system-helpers",
        "libc-bin",
        "ncurses-base",
        "ncurses-bin",
        "perl-base",
        "sed",
        "sysvinit-utils",
        "tar",
        "util-linux",
    ];
    seeds.extend(essential.map(str::to_owned));
    let theirs = apt(folder.path(), &sources, &request, &seeds);
    assert!(theirs.len() > 100, "apt printed {} packages", theirs.len());
    let only_ours: Vec<&String> = ours
        .iter()
        .filter(|(h, _)| !theirs.contains_key(*h))
        .map(|(_, n)| n)
        .collect();
    let only_theirs: Vec<&String> = theirs
        .iter()
        .filter(|(h, _)| !ours.contains_key(*h))
        .map(|(_, n)| n)
        .collect();
    assert!(
        only_ours.is_empty() && only_theirs.is_empty(),
        "only ours: {only_ours:?}; only apt's: {only_theirs:?}"
    );
}
