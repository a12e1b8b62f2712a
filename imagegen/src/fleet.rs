//! The entry of one host of the fleet.

use std::path::Path;

use anyhow::{Context, Result, bail};
use config::Fleet;

/// The entry of `name` in `fleet.toml` below `configs`.
///
/// # Errors
/// No such host (the known ones are named), or a configuration that is not understood.
pub(crate) fn host(configs: &Path, name: &str) -> Result<config::Host> {
    let path = configs.join("fleet.toml");
    let mut fleet = Fleet::load(configs)
        .with_context(|| format!("cannot use {} (see --configs)", path.display()))?;
    let Some(entry) = fleet.hosts.remove(name) else {
        let known: Vec<&str> = fleet.hosts.keys().map(String::as_str).collect();
        bail!(
            "{} has no host `{name}`; it has {}",
            path.display(),
            known.join(", ")
        );
    };
    Ok(entry)
}
