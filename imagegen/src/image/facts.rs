//! What a root file system says of itself: its packages and its units.

use std::collections::{BTreeMap, BTreeSet};

use formats::tree::{Kind, Node, Tree};
use packages::deb822;

/// Where dpkg keeps what is installed (dpkg(1)), and where the image does, which has no /var.
pub(crate) const STATUS: [&str; 2] = ["/var/lib/dpkg/status", "/usr/lib/sysimage/dpkg/status"];
/// Where dpkg keeps which files belong to a package.
const INFO: &str = "/var/lib/dpkg/info";
/// Folders of units, the stronger one first (systemd.unit(5)).
const UNITS: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

/// A package by dpkg's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
}

/// The packages that dpkg's status file names as installed, sorted by name; empty without one.
pub fn installed_packages(root: &Tree) -> Vec<Installed> {
    // One may be a link to the other.
    let content = |path: &&str| root.get(path).and_then(Node::content);
    let Some(status) = STATUS.iter().find_map(content) else {
        return Vec::new();
    };
    let status = String::from_utf8_lossy(status);
    let mut out: Vec<_> = deb822::stanzas(&status)
        .filter_map(|stanza| {
            let field = |name| deb822::field(stanza, name).map(|value| value.trim().to_string());
            let state = field("Status").unwrap_or_default();
            state.ends_with(" installed").then_some(())?;
            Some(Installed {
                name: field("Package")?,
                version: field("Version")?,
                arch: field("Architecture")?,
            })
        })
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

/// Path → package, by dpkg's lists of files; empty without them.
pub fn package_files(root: &Tree) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (path, node) in root.below(INFO) {
        let Some((name, list)) = path[INFO.len()..]
            .strip_prefix('/')
            .and_then(|name| name.strip_suffix(".list"))
            .zip(node.content())
        else {
            continue;
        };
        // Multi-arch packages have `name:amd64.list`.
        let name = name.split_once(':').map_or(name, |(name, _)| name);
        for line in String::from_utf8_lossy(list).lines() {
            // Packages may name files by /bin, /lib, …, which are links.
            let own = match root.get(line) {
                Some(_) => Some(line.to_string()),
                None => resolve_folder(root, line),
            };
            if let Some(own) = own {
                out.insert(own, name.to_string());
            }
        }
    }
    out
}

/// The path with the links in its folders followed, but not one that it is itself.
fn resolve_folder(root: &Tree, path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    let found = root.resolve(folder)?;
    let path = format!("{}/{name}", found.trim_end_matches('/'));
    root.get(&path).map(|_| path)
}

/// Which units start by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Units {
    /// Target (or what else wants them) → units.
    pub enabled: BTreeMap<String, BTreeSet<String>>,
    /// Units that cannot be started.
    pub masked: BTreeSet<String>,
}

/// The units that links in `.wants`, `.requires` and `.upholds` folders start, and the masked ones.
pub fn units(root: &Tree) -> Units {
    let mut out = Units::default();
    for folder in UNITS {
        for (path, node) in root.below(folder) {
            let Some(rest) = path[folder.len()..].strip_prefix('/') else {
                continue;
            };
            match rest.split_once('/') {
                Some((by, unit)) => {
                    let by = [".wants", ".requires", ".upholds"]
                        .iter()
                        .find_map(|end| by.strip_suffix(end));
                    let is_link = matches!(node.kind, Kind::Symlink(_));
                    if let (Some(by), true, false) = (by, is_link, unit.contains('/')) {
                        let units = out.enabled.entry(by.to_string()).or_default();
                        units.insert(unit.to_string());
                    }
                }
                None => {
                    let masked = match &node.kind {
                        Kind::Symlink(to) => to == "/dev/null",
                        Kind::File(data) => data.is_empty(),
                        _ => false,
                    };
                    if masked {
                        out.masked.insert(rest.to_string());
                    }
                }
            }
        }
    }
    let masked = &out.masked;
    for units in out.enabled.values_mut() {
        units.retain(|unit| !masked.contains(unit));
    }
    out.enabled.retain(|_, units| !units.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(nodes: &[(&str, Kind)]) -> Tree {
        let mut tree = Tree::new();
        for (path, kind) in nodes {
            let node = Node::new(kind.clone(), 0o644, "test");
            tree.insert(*path, node).unwrap();
        }
        tree
    }

    fn link(to: &str) -> Kind {
        Kind::Symlink(to.into())
    }

    #[test]
    fn packages_are_those_that_are_installed() {
        let status = "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.3\n\
                      Architecture: amd64\n\nPackage: gone\nStatus: deinstall ok config-files\n\
                      Version: 1\nArchitecture: all\n\nPackage: bash\n\
                      Status: install ok installed\nVersion: 5.2\nArchitecture: amd64\n";
        let root = tree(&[
            (STATUS[0], Kind::Hardlink(STATUS[1].into())),
            (STATUS[1], Kind::File(status.into())),
        ]);
        let names: Vec<_> = installed_packages(&root)
            .into_iter()
            .map(|p| format!("{} {} {}", p.name, p.version, p.arch))
            .collect();
        assert_eq!(names, ["bash 5.2 amd64", "zlib1g 1:1.3 amd64"]);
        assert!(installed_packages(&Tree::new()).is_empty());
    }

    #[test]
    fn files_belong_to_packages_through_merged_usr() {
        let list = "/.\n/bin\n/bin/sh\n/usr/lib/x\n/gone\n";
        let root = tree(&[
            ("/bin", link("usr/bin")),
            ("/usr", Kind::Dir),
            ("/usr/bin", Kind::Dir),
            ("/usr/bin/sh", link("dash")),
            ("/usr/lib/x", Kind::File("".into())),
            (
                "/var/lib/dpkg/info/dash:amd64.list",
                Kind::File(list.into()),
            ),
        ]);
        let files = package_files(&root);
        assert_eq!(files.get("/usr/bin/sh").map(String::as_str), Some("dash"));
        assert_eq!(files.get("/usr/lib/x").map(String::as_str), Some("dash"));
        assert_eq!(files.get("/gone"), None);
    }

    #[test]
    fn units_that_start_and_units_that_cannot() {
        let root = tree(&[
            (
                "/etc/systemd/system/multi-user.target.wants/ssh.service",
                link("/x"),
            ),
            (
                "/usr/lib/systemd/system/multi-user.target.wants/a.service",
                link("../a.service"),
            ),
            (
                "/usr/lib/systemd/system/sysinit.target.wants/b.service",
                link("../b.service"),
            ),
            ("/etc/systemd/system/b.service", link("/dev/null")),
            (
                "/etc/systemd/system/ssh.service.d/larder.conf",
                Kind::File("".into()),
            ),
            (
                "/usr/lib/systemd/system/a.service",
                Kind::File("[Unit]".into()),
            ),
        ]);
        let units = units(&root);
        let wanted = units.enabled.get("multi-user.target").unwrap();
        assert_eq!(
            wanted.iter().collect::<Vec<_>>(),
            ["a.service", "ssh.service"]
        );
        assert_eq!(units.enabled.len(), 1);
        assert_eq!(units.masked.iter().collect::<Vec<_>>(), ["b.service"]);
    }
}
