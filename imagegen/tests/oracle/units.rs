//! The units of a root, checked by its own systemd.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use formats::tree::{Kind, Node, Tree};

/// What `systemd-analyze verify` says about all that boots; nothing is good.
pub(crate) fn verify(tree: &Tree) -> String {
    let dir = tempfile::tempdir().unwrap();
    lay_out(tree, dir.path());
    lend_a_machine(dir.path());
    let units: Vec<&str> = tree
        .below("/usr/lib/systemd/system")
        .filter(|(path, node)| matches!(node.kind, Kind::File(_)) && path.matches('/').count() == 5)
        .map(|(path, _)| path)
        .filter(|path| path.contains("/larder-"))
        .collect();
    assert!(!units.is_empty(), "no unit of ours");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--pid", "--fork"])
        .arg("--root")
        .arg(dir.path())
        .args([
            "/usr/bin/systemd-analyze",
            "verify",
            "--man=no",
            "default.target",
        ])
        .args(units)
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin")
        .env("SYSTEMD_LOG_TARGET", "console")
        .output()
        .expect("unshare of util-linux");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => said,
        false => format!("{}: {said}", output.status),
    }
}

/// What the image finds on a machine: `/dev/null`, where the links of masks lead, and the machine's id,
/// which stage1 binds over the empty one (units ask for it as `%m`).
fn lend_a_machine(root: &Path) {
    fs::create_dir_all(root.join("dev")).unwrap();
    fs::write(root.join("dev/null"), "").unwrap();
    fs::write(
        root.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
}

/// Writes a tree as files of this user's.
fn lay_out(tree: &Tree, root: &Path) {
    let is_link = |node: &Node| matches!(node.kind, Kind::Hardlink(_));
    let (links, others): (Vec<_>, Vec<_>) = tree.iter().partition(|(_, node)| is_link(node));
    for (path, node) in others.into_iter().skip(1).chain(links) {
        let at = root.join(&path[1..]);
        match &node.kind {
            Kind::Dir => fs::create_dir(&at).unwrap(),
            Kind::Symlink(to) => symlink(to, &at).unwrap(),
            Kind::File(data) => fs::write(&at, data).unwrap(),
            Kind::Hardlink(to) => fs::hard_link(root.join(&to[1..]), &at).unwrap(),
            other => panic!("{path}: {other:?} in a root"),
        }
        if let Kind::File(_) | Kind::Dir = node.kind {
            let mode = u32::from(node.mode) & 0o777 | 0o600;
            fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}
