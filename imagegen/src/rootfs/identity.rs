//! What the image says of itself: os-release, `/etc/larder`, the list of its packages.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Root;

/// `/etc/larder/build.toml`: which image this is.
#[derive(Clone, Debug, Serialize)]
pub struct Build {
    /// Image id, `larder`.
    pub id: String,
    /// Image version.
    pub version: String,
    /// Kernel release, `6.18.15+deb13-cloud-amd64`.
    pub kernel: String,
    /// Seconds since 1970 that the image's files are dated with.
    pub clock: i64,
}

/// Configuration files that the machine reads, byte for byte as the user wrote them.
const CONFIGURATION: &[&str] = &[
    "image.toml",
    "system.toml",
    "fleet.toml",
    "cache.toml",
    "shipper.toml",
];

/// os-release(5) fields beside Debian's own.
fn os_release(debian: &str, build: &Build) -> String {
    let kept = debian.lines().filter(|line| {
        !["PRETTY_NAME=", "NAME=", "ID=", "ID_LIKE="]
            .iter()
            .any(|key| line.starts_with(key))
    });
    let mut text = format!(
        "PRETTY_NAME=\"Larder {v}\"\nNAME=\"Larder\"\nID=larder\nID_LIKE=debian\n\
         IMAGE_ID={id}\nIMAGE_VERSION={v}\nDEFAULT_HOSTNAME=larder\n",
        id = build.id,
        v = build.version,
    );
    for line in kept.filter(|line| !line.is_empty()) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

pub(super) fn apply(root: &mut Root, configs: &Path, build: &Build) -> Result<()> {
    let debian = root.text("/usr/lib/os-release")?;
    let text = os_release(&debian, build);
    root.file("/usr/lib/os-release", 0o644, text, "effect os-release")?;
    root.link(
        "/etc/os-release",
        "../usr/lib/os-release",
        "effect os-release",
    )?;
    for name in CONFIGURATION {
        let from = configs.join(name);
        let text = std::fs::read(&from).with_context(|| from.display().to_string())?;
        root.file(
            &format!("/etc/larder/{name}"),
            0o644,
            text,
            &format!("configs/{name}"),
        )?;
    }
    let build = toml::to_string(build)?;
    root.file("/etc/larder/build.toml", 0o644, build, "effect build")
}

/// The text that goes into the UKI's `.osrel` section.
///
/// # Errors
/// The tree has no os-release.
pub fn osrel(tree: &formats::tree::Tree) -> Result<Vec<u8>> {
    let node = tree
        .get("/usr/lib/os-release")
        .and_then(|node| node.content());
    Ok(node
        .context("/usr/lib/os-release is not in the root")?
        .to_vec())
}
