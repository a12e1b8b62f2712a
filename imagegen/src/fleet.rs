//! The entry of one host of the fleet.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use config::Fleet;

/// The entry of `name` in `fleet.toml` below `configs`.
///
/// # Errors
/// No such host (the known ones are named), or a configuration that is not understood.
pub(crate) fn host(configs: &Path, name: &str) -> Result<config::Host> {
    let fleet = Fleet::load(configs)
        .with_context(|| format!("cannot use {} (see --configs)", path(configs).display()))?;
    find(&fleet, configs, name).cloned()
}

/// The full name of a host.
///
/// # Errors
/// As [`host`].
pub(crate) fn name(configs: &Path, name: &str) -> Result<String> {
    let fleet = Fleet::load(configs)
        .with_context(|| format!("cannot use {} (see --configs)", path(configs).display()))?;
    let entry = find(&fleet, configs, name)?;
    let domain = entry.domain.as_ref().unwrap_or(&fleet.domain);
    Ok(format!("{name}.{domain}"))
}

/// The entry of `name` in a fleet that was loaded from `configs`.
///
/// # Errors
/// No such host; the known ones are named.
pub(crate) fn find<'a>(fleet: &'a Fleet, configs: &Path, name: &str) -> Result<&'a config::Host> {
    let Some(entry) = fleet.hosts.get(name) else {
        let known: Vec<&str> = fleet.hosts.keys().map(String::as_str).collect();
        bail!(
            "{} has no host `{name}`; it has {}",
            path(configs).display(),
            known.join(", ")
        );
    };
    Ok(entry)
}

fn path(configs: &Path) -> PathBuf {
    configs.join("fleet.toml")
}
