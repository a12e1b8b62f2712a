//! Enabling and masking of systemd units: what `systemctl --root enable` would link.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use formats::tree::Kind;

use super::Root;

const FOLDERS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

/// Enables and masks as `image.toml` says.
///
/// # Errors
/// A unit that is nowhere in the tree, or that has nothing to enable.
pub(super) fn apply(root: &mut Root, units: &config::Units) -> Result<()> {
    let mut done = BTreeSet::new();
    for unit in &units.enable {
        enable(root, unit, &mut done)
            .with_context(|| format!("image.toml: units.enable {unit:?}"))?;
    }
    for unit in units.mask.keys() {
        // A unit that no package of this lock has needs no mask: one list serves all kernels.
        let path = format!("/etc/systemd/system/{unit}");
        root.link(&path, "/dev/null", "image.toml units.mask")?;
    }
    Ok(())
}

fn enable(root: &mut Root, unit: &str, done: &mut BTreeSet<String>) -> Result<()> {
    if !done.insert(unit.to_string()) {
        return Ok(());
    }
    let (file, instance) = match unit.split_once('@') {
        Some((name, rest)) if !rest.starts_with('.') => {
            let suffix = rest.rsplit_once('.').context("no suffix")?;
            (format!("{name}@.{}", suffix.1), Some(suffix.0.to_string()))
        }
        _ => (unit.to_string(), None),
    };
    let found = FOLDERS
        .iter()
        .map(|folder| format!("{folder}/{file}"))
        .find(|path| {
            root.tree
                .get(path)
                .is_some_and(|n| matches!(n.kind, Kind::File(_)))
        })
        .context("no package and no overlay file has this unit")?;
    let text = root.text(&found)?;
    let install = install_section(&text);
    if install.is_empty() {
        bail!("it has no [Install] section");
    }
    let origin = format!("image.toml units.enable {unit}");
    for (key, value) in install {
        for word in value.split_whitespace() {
            let word = word.replace("%p", unit.split(['@', '.']).next().unwrap_or(unit));
            let word = match &instance {
                Some(instance) => word.replace("%i", instance),
                None => word,
            };
            match key.as_str() {
                "WantedBy" | "RequiredBy" | "UpheldBy" => {
                    let folder = match key.as_str() {
                        "WantedBy" => "wants",
                        "RequiredBy" => "requires",
                        _ => "upholds",
                    };
                    let path = format!("/etc/systemd/system/{word}.{folder}/{unit}");
                    root.link(&path, &found, &origin)?;
                }
                "Alias" => {
                    root.link(&format!("/etc/systemd/system/{word}"), &found, &origin)?;
                }
                "Also" => enable(root, &word, done).with_context(|| format!("Also={word}"))?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Key and value of each line of the `[Install]` section.
fn install_section(text: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Install]";
        } else if let (true, Some((key, value))) = (inside, line.split_once('='))
            && !line.starts_with(['#', ';'])
        {
            found.push((key.trim().to_string(), value.trim().to_string()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(units: &[(&str, &str)]) -> Root {
        let mut root = Root::new(0).unwrap();
        for (name, text) in units {
            let path = format!("/usr/lib/systemd/system/{name}");
            root.file(&path, 0o644, text.to_string(), "package test")
                .unwrap();
        }
        root
    }

    fn target(root: &Root, path: &str) -> Option<String> {
        match &root.tree.get(path)?.kind {
            Kind::Symlink(target) => Some(target.clone()),
            _ => None,
        }
    }

    #[test]
    fn install_sections_are_carried_out() {
        let mut root = root(&[
            (
                "a.service",
                "[Unit]\nWantedBy=no\n[Install]\n#WantedBy=no\nWantedBy=x.target y.target\nAlso=b.socket\nAlias=c.service\n",
            ),
            ("b.socket", "[Install]\nRequiredBy=sockets.target\n"),
            ("g@.service", "[Install]\nWantedBy=%p-%i.target\n"),
        ]);
        let units = config::Units {
            enable: vec!["a.service".into(), "g@tty1.service".into()],
            mask: [("z.service".to_string(), "not needed".to_string())].into(),
        };
        apply(&mut root, &units).unwrap();
        let etc = "/etc/systemd/system";
        for (link, to) in [
            (
                "x.target.wants/a.service",
                "/usr/lib/systemd/system/a.service",
            ),
            (
                "y.target.wants/a.service",
                "/usr/lib/systemd/system/a.service",
            ),
            ("c.service", "/usr/lib/systemd/system/a.service"),
            (
                "sockets.target.requires/b.socket",
                "/usr/lib/systemd/system/b.socket",
            ),
            (
                "g-tty1.target.wants/g@tty1.service",
                "/usr/lib/systemd/system/g@.service",
            ),
            ("z.service", "/dev/null"),
        ] {
            assert_eq!(
                target(&root, &format!("{etc}/{link}")).as_deref(),
                Some(to),
                "{link}"
            );
        }
        assert!(root.tree.get("/etc/systemd/system/no.wants").is_none());
    }

    #[test]
    fn a_unit_that_is_not_there_is_an_error() {
        let units = config::Units {
            enable: vec!["none.service".into()],
            mask: [].into(),
        };
        let err = format!("{:#}", apply(&mut root(&[]), &units).unwrap_err());
        assert!(
            err.contains("none.service") && err.contains("no package"),
            "{err}"
        );
    }
}
