//! What `image.toml` leaves out of the packages.

use std::collections::HashSet;

use anyhow::{Result, bail};
use config::trim::Rules;
use formats::tree::Kind;

use super::Root;

/// Drops what the rules drop, then the folders that they emptied. Only what packages ship is
/// dropped: whatever effects, overlay and configuration put there was asked for.
///
/// # Errors
/// Rules that drop a file and keep another name (a hard link) of it.
pub(super) fn apply(root: &mut Root, rules: &Rules) -> Result<()> {
    root.tree.retain(|path, node| {
        !node.origin.starts_with("package ") || node.kind == Kind::Dir || rules.keeps(path)
    });
    for (path, node) in root.tree.iter() {
        if let Kind::Hardlink(target) = &node.kind
            && root.tree.get(target).is_none()
        {
            bail!(
                "image.toml: the trim rules drop {target} and keep {path}, another name of the \
                 same file: drop or keep both"
            );
        }
    }
    // A package's empty folder stays, unless the rules would drop it or what may lie in it. Its
    // own children are looked at first: they come later in the order of paths.
    let mut filled: HashSet<String> = HashSet::new();
    let mut empty: Vec<String> = Vec::new();
    let nodes: Vec<(&str, bool)> = root
        .tree
        .iter()
        .map(|(path, node)| {
            let candidate = node.kind == Kind::Dir && node.origin.starts_with("package ");
            (path, candidate)
        })
        .collect();
    for (path, candidate) in nodes.into_iter().rev() {
        let drop = candidate
            && !filled.contains(path)
            && (!rules.keeps(path) || !rules.keeps(&format!("{path}/.")));
        if drop {
            empty.push(path.to_string());
        } else if let Some(at) = path.rfind('/') {
            filled.insert(path[..at].to_string());
        }
    }
    for path in empty {
        root.tree.remove(&path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{Trim, TrimRule};

    fn rules(drop: &[&str], keep: &[&str]) -> Rules {
        let rule = |paths: &[&str], keep| TrimRule {
            paths: paths.iter().map(ToString::to_string).collect(),
            keep,
            why: "test".into(),
        };
        let rules = vec![rule(drop, false), rule(keep, true)];
        Rules::new(&Trim { rules }).unwrap()
    }

    fn root(files: &[&str]) -> Root {
        let mut root = Root::new(0).unwrap();
        for file in files {
            root.file(file, 0o644, "x", "package test").unwrap();
        }
        root
    }

    fn paths(root: &Root, below: &str) -> Vec<String> {
        root.tree.below(below).map(|(p, _)| p.to_string()).collect()
    }

    #[test]
    fn emptied_folders_go_and_others_stay() {
        let mut root = root(&[
            "/usr/share/doc/a/b/c",
            "/usr/share/doc/d/copyright",
            "/opt/x/y",
        ]);
        root.parents("/usr/share/doc/e/f/x", "package test")
            .unwrap();
        root.dir("/opt/empty", 0o755, "package test").unwrap();
        let rules = rules(
            &["/usr/share/doc/**", "/opt/x/y"],
            &["/usr/share/doc/*/copyright"],
        );
        apply(&mut root, &rules).unwrap();
        assert_eq!(
            paths(&root, "/usr/share/doc"),
            [
                "/usr/share/doc",
                "/usr/share/doc/d",
                "/usr/share/doc/d/copyright"
            ]
        );
        // Only its file was named, and a folder that was empty before is somebody's wish.
        assert_eq!(paths(&root, "/opt"), ["/opt", "/opt/empty", "/opt/x"]);
    }

    #[test]
    fn what_no_package_ships_is_kept() {
        let mut root = root(&["/etc/a"]);
        root.file("/etc/b", 0o644, "x", "configs/root/etc/b")
            .unwrap();
        apply(&mut root, &rules(&["/etc/**"], &[])).unwrap();
        assert_eq!(paths(&root, "/etc"), ["/etc", "/etc/b"]);
    }

    #[test]
    fn half_of_a_hard_link_is_an_error() {
        let mut root = root(&["/usr/bin/perl5", "/usr/bin/perl"]);
        let node = root.tree.get_mut("/usr/bin/perl").unwrap();
        node.kind = Kind::Hardlink("/usr/bin/perl5".into());
        let error = apply(&mut root, &rules(&["/usr/bin/perl5"], &[])).unwrap_err();
        assert!(
            error.to_string().contains("/usr/bin/perl, another name"),
            "{error}"
        );
        apply(&mut root, &rules(&["/usr/bin/perl*"], &[])).unwrap();
    }
}
