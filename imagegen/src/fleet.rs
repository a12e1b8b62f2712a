//! The entry of one host of the fleet.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// The entry of `name` in `fleet.toml` below `configs`.
///
/// # Errors
/// No such host (the known ones are named), or a configuration that is not understood.
pub(crate) fn host(configs: &Path, name: &str) -> Result<config::Host> {
    let path = configs.join("fleet.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {} (see --configs)", path.display()))?;
    let mut fleet: config::Fleet =
        toml::from_str(&text).with_context(|| format!("{} is not understood", path.display()))?;
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
