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
    /// Name of the setting; with `[]` for one item of a list.
    pub key: String,
    /// Before; `None` if it was not set.
    pub old: Option<String>,
    /// Now; `None` if it is no longer set.
    pub new: Option<String>,
}

/// Files with the hashes of passwords, if anybody has one: their lines are shown to nobody.
const SECRET: [&str; 2] = ["/etc/shadow", "/etc/gshadow"];

/// Whether what changes in a file is told in another way than line by line: setting by setting,
/// package by package, or not at all.
pub(super) fn covers(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder)?.strip_prefix('/');
    let is_sysctl = |folder: &str| below(folder).is_some_and(|name| name.ends_with(".conf"));
    STATUS.contains(&path)
        || SECRET.contains(&path)
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
        let (old, new) = (before.get(path), after.get(path));
        compare(path, old.unwrap_or(&none), new.unwrap_or(&none), &mut out);
    }
    out
}

fn compare(place: &str, old: &Values, new: &Values, out: &mut Vec<SettingChange>) {
    let mut change = |key: String, old: Option<String>, new: Option<String>| {
        let place = place.to_string();
        out.push(SettingChange {
            place,
            key,
            old,
            new,
        });
    };
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (old, new) = (old.get(key), new.get(key));
        if old == new {
            continue;
        }
        // Of a list, what it lost and got; all of it where only the order differs.
        if let (Some(Value::List(old)), Some(Value::List(new))) = (old, new) {
            let (lost, got) = (without(old, new), without(new, old));
            if !(lost.is_empty() && got.is_empty()) {
                let key = format!("{key}[]");
                lost.into_iter()
                    .for_each(|item| change(key.clone(), Some(item), None));
                got.into_iter()
                    .for_each(|item| change(key.clone(), None, Some(item)));
                continue;
            }
        }
        let text = |value: Option<&Value>| value.map(ToString::to_string);
        change(key.clone(), text(old), text(new));
    }
}

/// What is in `a` more often than in `b`.
fn without(a: &[String], b: &[String]) -> Vec<String> {
    let mut left = b.to_vec();
    let more = a.iter().filter(|item| {
        let found = left.iter().position(|other| other == *item);
        found.map(|at| left.swap_remove(at)).is_none()
    });
    more.cloned().collect()
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    One(String),
    List(Vec<String>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(text) => f.write_str(text),
            Self::List(items) => write!(f, "[{}]", items.join(", ")),
        }
    }
}

/// Values by the names of their settings.
type Values = BTreeMap<String, Value>;

/// The kernel parameters that systemd-sysctl sets: files in the order of their names, whatever
/// folder they are in; one in /etc replaces that of the same name.
fn sysctls(tree: &Tree) -> Values {
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
                out.insert(key, Value::One(value.trim().to_string()));
            }
        }
    }
    out
}

/// Path → key → value of Larder's TOML files; one that is not understood has the one key `text`.
fn toml_files(tree: &Tree) -> BTreeMap<String, Values> {
    let mut out = BTreeMap::new();
    for (path, node) in tree.below(LARDER) {
        let Some(content) = Node::content(node).filter(|_| path.ends_with(".toml")) else {
            continue;
        };
        let text = String::from_utf8_lossy(content);
        let mut keys = BTreeMap::new();
        match text.parse::<toml::Table>() {
            Ok(table) => flatten("", &toml::Value::Table(table), &mut keys),
            Err(_) => _ = keys.insert("text".to_string(), Value::One(text.into_owned())),
        }
        out.insert(path.to_string(), keys);
    }
    out
}

fn flatten(prefix: &str, value: &toml::Value, out: &mut Values) {
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
        toml::Value::Array(items) => {
            let items = items.iter().map(ToString::to_string).collect();
            out.insert(prefix.to_string(), Value::List(items));
        }
        other => _ = out.insert(prefix.to_string(), Value::One(other.to_string())),
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
    fn of_lists_it_is_said_what_they_lost_and_got() {
        let side = |text: &str| {
            let mut tree = Tree::new();
            let node = Node::new(Kind::File(text.to_string().into()), 0o644, "x");
            tree.insert("/etc/larder/x.toml", node).unwrap();
            tree
        };
        let words = |old: &str, new: &str| {
            let words = changes(&side(old), &side(new))
                .into_iter()
                .map(|c| format!("{} {:?} {:?}", c.key, c.old, c.new));
            words.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            words("a.b = [1, 2, 2]\n", "a.b = [2, 3, 1]\n"),
            "a.b[] Some(\"2\") None; a.b[] None Some(\"3\")"
        );
        assert_eq!(
            words("a = [1, 2]\n", "a = [2, 1]\n"),
            "a Some(\"[1, 2]\") Some(\"[2, 1]\")"
        );
        assert_eq!(words("a = [1]\n", "a = 1\n"), "a Some(\"[1]\") Some(\"1\")");
        assert_eq!(words("a = {}\n", "a = {}\n"), "");
        assert_eq!(
            words("= broken", "b = 1\n"),
            "b None Some(\"1\"); text Some(\"= broken\") None"
        );
    }

    #[test]
    fn what_is_told_by_setting() {
        assert!(covers("/usr/lib/sysctl.d/90-larder.conf"));
        assert!(covers("/etc/larder/fleet.toml"));
        assert!(covers("/var/lib/dpkg/status"));
        assert!(covers("/etc/shadow"));
        assert!(!covers("/etc/larder/cache.toml.d/x"));
        assert!(!covers("/etc/nftables.conf"));
    }
}
