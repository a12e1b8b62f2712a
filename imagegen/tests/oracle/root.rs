//! Our root of the shipped configuration.

use std::path::{Path, PathBuf};

use formats::tree::Tree;
use imagegen::rootfs::{self, Locked};

/// Whether the trim rules apply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trim {
    On,
    Off,
}

pub(crate) fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

pub(crate) fn config() -> config::Config {
    config::Config::load(&configs()).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn lock() -> packages::Lock {
    packages::Lock::load(&configs().join("packages.lock")).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn fetcher() -> packages::Fetcher {
    let cache = packages::Cache::of_user().unwrap_or_else(|e| panic!("{e}"));
    packages::Fetcher::new(Vec::new(), cache, std::sync::Arc::new(packages::Silent))
}

/// Downloads what is not there yet.
pub(crate) fn fetch(wanted: &[&packages::Package]) -> Vec<Locked> {
    let paths = fetcher().fetch(wanted).unwrap_or_else(|e| panic!("{e}"));
    let packages = wanted.iter().map(|package| (*package).clone());
    packages.zip(paths).collect()
}

pub(crate) fn assemble(trim: Trim) -> Tree {
    let (mut config, lock) = (config(), lock());
    if trim == Trim::Off {
        config.image.trim.rules.clear();
    }
    let system = fetch(&lock.system().collect::<Vec<_>>());
    let linux = fetch(
        &lock
            .kernel(&config.image.kernel.default)
            .collect::<Vec<_>>(),
    );
    let unpacked = rootfs::unpack(&config, &system, &linux).unwrap_or_else(|e| panic!("{e:#}"));
    let unknown = &unpacked.unknown_scripts;
    assert!(
        unknown.is_empty(),
        "nobody has read the scripts of {unknown:?}"
    );
    let clock = i64::try_from(lock.date).unwrap();
    let build = rootfs::Build {
        id: config.image.id.clone(),
        version: config.image.version.clone(),
        kernel: unpacked.kernel.release.clone(),
        clock,
    };
    rootfs::assemble(rootfs::Sources {
        config: &config,
        configs: &configs(),
        secrets: None,
        packages: unpacked.packages,
        kernel: unpacked.kernel,
        // What it does plays no part here, that it can be started does.
        binaries: vec![("/usr/bin/appliance".into(), "#!/bin/sh\n".into())],
        clock,
        build,
    })
    .unwrap_or_else(|e| panic!("{e:#}"))
}
