//! Settings: kernel parameters by name, Larder's own configuration by key.

use std::collections::{BTreeMap, BTreeSet};

use formats::tree::{Node, Tree};
use serde::Serialize;

use crate::image::STATUS;

/// Where sysctl.d(5) files are, the weaker folder first.
const SYSCTL: [&str; 2] = ["/usr/lib/sysctl.d", "/etc/sysctl.d"];
/// Larder's configuration.
const LARDER: &str = "/etc/larder";

/// A setting that has another value, or that only one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingChange {
    /// `sysctl`, or the file.
    pub place: String,
    /// Name of the setting.
    pub key: String,
    /// Before; `None` if it was not set.
    pub old: Option<String>,
    /// Now; `None` if it is no longer set.
    pub new: Option<String>,
}

/// Whether what changes in a file is told in another way than line by line: setting by setting, or
/// package by package.
pub(super) fn covers(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/');
    let is_sysctl = |folder: &str| below(folder).is_some_and(|name| name.ends_with(".conf"));
    STATUS.contains(&path)
        || SYSCTL.iter().any(|folder| is_sysctl(folder))
        || below(LARDER).is_some_and(|name| name.ends_with(".toml"))
}

/// All changes of settings.
pub(super) fn changes(old: &Tree, new: &Tree) -> Vec<SettingChange> {
    let mut out = Vec::new();
    compare("sysctl", &sysctls(old), &sysctls(new), &mut out);
    let (before, after) = (toml_files(old), toml_files(new));
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let none = BTreeMap::new();
    for path in paths {
        let side = |files: &BTreeMap<String, BTreeMap<String, String>>| {
            files.get(path).unwrap_or(&none).clone()
        };
        compare(path, &side(&before), &side(&after), &mut out);
    }
    out
}

fn compare(
    place: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    out: &mut Vec<SettingChange>,
) {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (old, new) = (old.get(key), new.get(key));
        if old != new {
            out.push(SettingChange {
                place: place.to_string(),
                key: key.clone(),
                old: old.cloned(),
                new: new.cloned(),
            });
        }
    }
}

/// The kernel parameters that systemd-sysctl sets: files in the order of their names, whatever
/// folder they are in; one in /etc replaces that of the same name.
fn sysctls(tree: &Tree) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for folder in SYSCTL {
        for (path, node) in tree.below(folder) {
            let name = path.rsplit('/').next().unwrap_or(path);
            if name.ends_with(".conf") {
                files.insert(name.to_string(), node.content());
            }
        }
    }
    let mut out = BTreeMap::new();
    for content in files.into_values().flatten() {
        for line in String::from_utf8_lossy(content).lines() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some((key, value)) = line.split_once('=') {
                // A minus means that a failure does not matter; slashes are dots.
                let key = key.trim().trim_start_matches('-').replace('/', ".");
                out.insert(key, value.trim().to_string());
            }
        }
    }
    out
}

/// Path → key → value of Larder's TOML files; one that is not understood has the one key `text`.
fn toml_files(tree: &Tree) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for (path, node) in tree.below(LARDER) {
        let Some(content) = Node::content(node).filter(|_| path.ends_with(".toml")) else {
            continue;
        };
        let text = String::from_utf8_lossy(content);
        let mut keys = BTreeMap::new();
        match text.parse::<toml::Table>() {
            Ok(table) => flatten("", &toml::Value::Table(table), &mut keys),
            Err(_) => _ = keys.insert("text".to_string(), text.into_owned()),
        }
        out.insert(path.to_string(), keys);
    }
    out
}

fn flatten(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                let key = match prefix {
                    "" => key.clone(),
                    _ => format!("{prefix}.{key}"),
                };
                flatten(&key, value, out);
            }
        }
        other => _ = out.insert(prefix.to_string(), other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use formats::tree::Kind;

    use super::*;

    #[test]
    fn a_file_in_etc_replaces_its_namesake_and_names_decide_the_order() {
        let mut tree = Tree::new();
        for (path, text) in [
            ("/usr/lib/sysctl.d/10-a.conf", "a.b = 1\nc = 1\n"),
            ("/usr/lib/sysctl.d/50-b.conf", "x/y=2\n-z = 3\n# d = 1\n"),
            ("/etc/sysctl.d/10-a.conf", "a.b = 5\n"),
            ("/etc/sysctl.d/05-c.conf", "a.b = 7\n"),
        ] {
            let node = Node::new(Kind::File(text.into()), 0o644, "x");
            tree.insert(path, node).unwrap();
        }
        let found: Vec<_> = sysctls(&tree).into_iter().collect();
        let found: Vec<_> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(found, ["a.b=5", "x.y=2", "z=3"]);
    }

    #[test]
    fn what_is_told_by_setting() {
        assert!(covers("/usr/lib/sysctl.d/90-larder.conf"));
        assert!(covers("/etc/larder/fleet.toml"));
        assert!(covers("/var/lib/dpkg/status"));
        assert!(!covers("/etc/larder/cache.toml.d/x"));
        assert!(!covers("/etc/nftables.conf"));
    }
}
