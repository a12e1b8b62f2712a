//! The manifest of secrets in the image: the file itself, the units that fetch and hand out, and for
//! each consumer a drop-in by which it loads its credentials.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use formats::tree::Kind;
use secrets::CREDENTIAL_SOCKET;
use secrets::manifest::Manifest;

use super::Root;

/// Where the machine has it.
const PATH: &str = "/etc/larder/secrets.toml";
/// Where the overlay and packages have units.
pub(crate) const UNITS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];
/// Target that starts each of our units.
const ENABLED: [(&str, &str); 3] = [
    ("sockets.target", "larder-secrets.socket"),
    ("sockets.target", "larder-refresh.socket"),
    ("multi-user.target", "larder-secrets.service"),
];

/// The manifest that belongs to a folder of configuration: `../secrets/manifest.toml`, if it is there.
pub(crate) fn manifest_of(configs: &Path) -> Option<PathBuf> {
    let path = configs.join("../secrets/manifest.toml");
    path.exists().then_some(path)
}

/// File of a unit: an instance has that of its template.
pub(crate) fn unit_file(unit: &str) -> String {
    match unit.split_once('@') {
        Some((template, _)) => format!("{template}@.service"),
        None => unit.to_owned(),
    }
}

/// Puts a manifest in. Without one no unit of ours starts, and nobody loads anything.
pub(super) fn apply(root: &mut Root, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let manifest = Manifest::parse(&text, path)?;
    let exists = |unit: &str| {
        UNITS.iter().any(|folder| {
            let node = root.tree.get(&format!("{folder}/{}", unit_file(unit)));
            node.is_some_and(|node| node.kind != Kind::Dir)
        })
    };
    if let Err(problems) = manifest.check_consumers(exists) {
        bail!("{}: {}", path.display(), problems.join("\n"));
    }
    let origin = "secrets/manifest.toml";
    root.file(PATH, 0o644, text.clone(), origin)?;
    for (unit, credentials) in manifest.credentials() {
        let file = format!("/usr/lib/systemd/system/{unit}.d/larder-secrets.conf");
        root.file(&file, 0o644, drop_in(&credentials), origin)?;
    }
    for (target, unit) in ENABLED {
        let link = format!("/usr/lib/systemd/system/{target}.wants/{unit}");
        root.link(&link, &format!("../{unit}"), origin)?;
    }
    Ok(())
}

fn drop_in(credentials: &[&str]) -> String {
    let mut text = "# Made by imagegen from secrets/manifest.toml.\n[Unit]\n\
                    After=larder-secrets.socket larder-refresh.socket\n\n[Service]\n"
        .to_owned();
    for credential in credentials {
        text.push_str(&format!(
            "LoadCredential={credential}:{CREDENTIAL_SOCKET}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[secrets.jwt]\nreference = \"cred://x.jwt\"\n\
        consumers = [{ unit = \"a.service\" }, { unit = \"b@1.service\", credential = \"key\" }]\n";

    fn root() -> Root {
        let mut root = Root::new(0).unwrap();
        for unit in ["a.service", "b@.service"] {
            let path = format!("/usr/lib/systemd/system/{unit}");
            root.file(&path, 0o644, "[Service]\n", "package test")
                .unwrap();
        }
        root
    }

    fn put(root: &mut Root, text: &str) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.toml");
        std::fs::write(&path, text).unwrap();
        apply(root, Some(&path))
    }

    #[test]
    fn consumers_get_drop_ins() {
        let mut root = root();
        put(&mut root, MANIFEST).unwrap();
        assert_eq!(root.text(PATH).unwrap(), MANIFEST);
        let drop_in = |unit: &str| {
            root.text(&format!(
                "/usr/lib/systemd/system/{unit}.d/larder-secrets.conf"
            ))
        };
        let text = drop_in("a.service").unwrap();
        assert!(text.ends_with("\n[Service]\nLoadCredential=jwt:/run/larder/secrets.sock\n"));
        let text = drop_in("b@1.service").unwrap();
        assert!(text.ends_with("\nLoadCredential=key:/run/larder/secrets.sock\n"));
        for (target, unit) in ENABLED {
            let link = format!("/usr/lib/systemd/system/{target}.wants/{unit}");
            assert!(root.tree.get(&link).is_some(), "{link}");
        }
    }

    #[test]
    fn without_a_manifest_nothing_is_enabled() {
        let mut root = root();
        let before = root.tree.len();
        apply(&mut root, None).unwrap();
        assert_eq!(root.tree.len(), before);
    }

    #[test]
    fn a_consumer_that_is_no_unit_is_an_error() {
        let text = MANIFEST.replace("a.service", "other.service");
        let error = format!("{:#}", put(&mut root(), &text).unwrap_err());
        assert!(
            error.contains("manifest.toml: secret jwt: there is no unit other.service"),
            "{error}"
        );
    }
}
