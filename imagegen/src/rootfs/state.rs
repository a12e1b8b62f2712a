//! What packages have below `/var`. At run time state is mounted there, so it becomes lines of
//! tmpfiles.d(5), and the root's own `/var` is left empty.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use formats::tree::{Kind, Node};

use super::Root;

/// Where tmpfiles.d's `C` lines copy from.
const FACTORY: &str = "/usr/share/factory";

/// Folders and links become lines unless another file of tmpfiles.d has one for the path; files
/// are kept where such a line copies them from.
pub(super) fn apply(root: &mut Root) -> Result<()> {
    let known = declared(root);
    let nodes: Vec<(String, Node)> = root
        .tree
        .below("/var")
        .filter(|(path, _)| *path != "/var")
        .map(|(path, node)| (path.to_string(), node.clone()))
        .collect();
    let mut text = String::from("# What the packages have below /var, by the builder.\n");
    for (path, node) in nodes {
        root.tree.remove(&path);
        if known.contains(&path) {
            continue;
        }
        let (uid, gid, mode) = (node.uid, node.gid, node.mode);
        // tmpfiles.d expands `%` and splits at spaces.
        let quoted = path.replace('%', "%%").replace(' ', "\\x20");
        let _ = match &node.kind {
            Kind::Dir => writeln!(text, "d {quoted} {mode:04o} {uid} {gid} -"),
            Kind::Symlink(to) => {
                let to = to.replace('%', "%%");
                writeln!(text, "L {quoted} - - - - {to}")
            }
            Kind::Fifo => writeln!(text, "p {quoted} {mode:04o} {uid} {gid} -"),
            Kind::File(_) => {
                let copy = format!("{FACTORY}{path}");
                root.parents(&copy, &node.origin)?;
                root.tree.insert(copy, node)?;
                writeln!(text, "C {quoted} {mode:04o} {uid} {gid} -")
            }
            other => anyhow::bail!("{path} of {}: {other:?} below /var", node.origin),
        };
    }
    let path = "/usr/lib/tmpfiles.d/larder-packages.conf";
    root.file(path, 0o644, text, "effect var")
}

/// The paths that files of tmpfiles.d have lines for.
fn declared(root: &Root) -> BTreeSet<String> {
    ["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d"]
        .iter()
        .flat_map(|folder| root.tree.below(folder))
        .filter(|(path, _)| path.ends_with(".conf"))
        .filter_map(|(_, node)| Some(String::from_utf8_lossy(node.content()?).into_owned()))
        .flat_map(|text| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let paths = lines.filter_map(|line| line.split_whitespace().nth(1));
            paths.map(str::to_string).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packages_have_below_var_is_made_at_boot() {
        let mut root = Root::new(0).unwrap();
        let origin = "package test";
        root.dir("/var/lib", 0o755, origin).unwrap();
        root.dir("/var/lib/tpm", 0o700, origin).unwrap();
        root.chown("/var/lib/tpm", 987, 987).unwrap();
        root.link("/var/run", "/run", origin).unwrap();
        root.link("/var/a%b c", "x", origin).unwrap();
        root.file("/var/lib/seed", 0o600, "s", origin).unwrap();
        let known = "#L /var/a%b\nL /var/run - - - - ../run\n";
        root.file("/usr/lib/tmpfiles.d/var.conf", 0o644, known, origin)
            .unwrap();
        apply(&mut root).unwrap();
        let text = root
            .text("/usr/lib/tmpfiles.d/larder-packages.conf")
            .unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "L /var/a%%b\\x20c - - - - x",
                "d /var/lib 0755 0 0 -",
                "C /var/lib/seed 0600 0 0 -",
                "d /var/lib/tpm 0700 987 987 -",
            ]
        );
        assert_eq!(root.tree.below("/var").count(), 1);
        assert_eq!(root.text("/usr/share/factory/var/lib/seed").unwrap(), "s");
        root.tree.check().unwrap();
    }
}
