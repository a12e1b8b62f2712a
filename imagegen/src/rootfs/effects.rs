//! What maintainer scripts would do, as declared effects.
//!
//! Each line says for which package and what. A package that is not in the lock has no effect.
//! Accounts, units, kernel modules and the configuration have modules of their own.

use anyhow::{Context, Result};
use formats::ldcache;
use formats::tree::{Kind, Node};

use super::{Root, accounts};

/// One effect: the package whose script it stands for, and what it does.
enum Effect {
    /// A symbolic link.
    Link(&'static str, &'static str),
    /// A copy of a file of the package, with a mode.
    Copy(&'static str, &'static str, u16),
    /// An empty file with a mode.
    Empty(&'static str, u16),
    /// A folder with a mode.
    Dir(&'static str, u16),
    /// A change of mode.
    Mode(&'static str, u16),
    /// A change of mode and group.
    Group(&'static str, u16, &'static str),
}
use Effect::{Copy, Dir, Empty, Group, Link, Mode};

const EFFECTS: &[(&str, &[Effect])] = &[
    (
        "base-files",
        &[
            Copy("/usr/share/base-files/dot.profile", "/root/.profile", 0o644),
            Copy("/usr/share/base-files/dot.bashrc", "/root/.bashrc", 0o644),
            Copy("/usr/share/base-files/profile", "/etc/profile", 0o644),
            Link("/etc/dpkg/origins/default", "debian"),
            Link("/etc/mtab", "../proc/self/mounts"),
            // Homes persist: they are on state.
            Link("/home", "var/home"),
            Dir("/srv", 0o755),
            Dir("/mnt", 0o755),
            Dir("/media", 0o755),
            Dir("/opt", 0o755),
        ],
    ),
    ("dash", &[Link("/usr/bin/sh", "dash")]),
    (
        "mawk",
        &[Link("/usr/bin/awk", "mawk"), Link("/usr/bin/nawk", "mawk")],
    ),
    ("less", &[Link("/usr/bin/pager", "less")]),
    (
        "debianutils",
        &[Link("/usr/bin/which", "which.debianutils")],
    ),
    ("tar", &[Link("/usr/sbin/rmt", "rmt-tar")]),
    (
        "vim-tiny",
        &[
            Link("/usr/bin/vi", "vim.tiny"),
            Link("/usr/bin/view", "vim.tiny"),
            Link("/usr/bin/ex", "vim.tiny"),
            Link("/usr/bin/rview", "vim.tiny"),
            Link("/usr/bin/editor", "vim.tiny"),
        ],
    ),
    (
        "libssl3t64",
        &[
            // Where OpenSSL looks unless told otherwise; the package openssl would link them.
            Link("/usr/lib/ssl/certs", "/etc/ssl/certs"),
            Link("/usr/lib/ssl/private", "/etc/ssl/private"),
            Link(
                "/usr/lib/ssl/cert.pem",
                "/etc/ssl/certs/ca-certificates.crt",
            ),
            Dir("/etc/ssl/private", 0o700),
        ],
    ),
    (
        "libpam-modules",
        &[
            Empty("/etc/environment", 0o644),
            Empty("/etc/security/opasswd", 0o600),
        ],
    ),
    (
        "openssh-client",
        &[Group("/usr/bin/ssh-agent", 0o2755, "_ssh")],
    ),
    ("sudo", &[Mode("/etc/sudoers", 0o440)]),
    (
        // What tmpfiles.d would do in /etc and /root at boot, which are sealed then.
        "systemd",
        &[
            Mode("/etc/credstore", 0o700),
            Mode("/etc/credstore.encrypted", 0o700),
            Link("/etc/default/locale", "../locale.conf"),
            Link("/etc/vconsole.conf", "default/keyboard"),
            Dir("/root/.ssh", 0o700),
            // Its /home is no link.
            Link("/etc/tmpfiles.d/home.conf", "/dev/null"),
        ],
    ),
    (
        "systemd-resolved",
        &[Link(
            "/etc/resolv.conf",
            "../run/systemd/resolve/stub-resolv.conf",
        )],
    ),
    (
        "dbus-broker",
        &[
            Link(
                "/etc/systemd/system/dbus.service",
                "/usr/lib/systemd/system/dbus-broker.service",
            ),
            Link(
                "/etc/systemd/user/dbus.service",
                "/usr/lib/systemd/user/dbus-broker.service",
            ),
        ],
    ),
];

/// What update-shells makes of the shells of bash and dash.
const SHELLS: &str = "# /etc/shells: valid login shells\n/bin/sh\n/usr/bin/sh\n/bin/bash\n\
    /usr/bin/bash\n/bin/rbash\n/usr/bin/rbash\n/usr/bin/dash\n";

/// Carries the table out and what needs more than a line: certificates, the machine id, shells.
pub(super) fn apply(root: &mut Root, config: &config::Config) -> Result<()> {
    for (package, effects) in EFFECTS {
        if !root.packages.contains(*package) {
            continue;
        }
        let origin = format!("effect {package}");
        for effect in *effects {
            carry_out(root, effect, &origin).with_context(|| format!("effect of {package}"))?;
        }
    }
    certificates(root)?;
    // stage1 binds the machine id of state over it; without a file there is nothing to bind to.
    root.file("/etc/machine-id", 0o444, "", "effect systemd")?;
    root.file("/etc/shells", 0o644, SHELLS, "effect debianutils")?;
    // systemd looks at its time stamp when the clock is behind it.
    root.file("/usr/lib/clock-epoch", 0o644, "", "effect clock")?;
    let target = "/usr/lib/systemd/system/multi-user.target";
    root.link(
        "/etc/systemd/system/default.target",
        target,
        "effect systemd",
    )?;
    if config.system.time.zone != "Etc/UTC" && config.system.time.zone != "UTC" {
        let zone = format!("/usr/share/zoneinfo/{}", config.system.time.zone);
        root.tree.get(&zone).with_context(|| {
            format!("system.toml: time zone {zone} is not there: add tzdata to the packages")
        })?;
        root.link("/etc/localtime", &format!("..{zone}"), "effect tzdata")?;
    }
    Ok(())
}

fn carry_out(root: &mut Root, effect: &Effect, origin: &str) -> Result<()> {
    match effect {
        Link(path, target) => root.link(path, target, origin),
        Copy(from, to, mode) => {
            let text = root.text(from)?;
            root.file(to, *mode, text, origin)
        }
        Empty(path, mode) => root.file(path, *mode, "", origin),
        Dir(path, mode) => root.dir(path, *mode, origin),
        Mode(path, mode) | Group(path, mode, _) => {
            // What the trim rules drop is not unpacked and needs no mode.
            let Some(node) = root.tree.get_mut(path) else {
                return Ok(());
            };
            node.mode = *mode;
            if let Group(_, _, group) = effect {
                node.gid = accounts::fixed(group)?;
            }
            Ok(())
        }
    }
}

/// The bundle that update-ca-certificates writes: every certificate, sorted by path.
fn certificates(root: &mut Root) -> Result<()> {
    let mut bundle = Vec::new();
    for (path, node) in root.tree.below("/usr/share/ca-certificates") {
        if let (true, Some(pem)) = (path.ends_with(".crt"), node.content()) {
            bundle.extend_from_slice(pem);
            if !pem.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    anyhow::ensure!(
        !bundle.is_empty(),
        "no certificate below /usr/share/ca-certificates"
    );
    root.file(
        "/etc/ssl/certs/ca-certificates.crt",
        0o644,
        bundle,
        "effect ca-certificates",
    )
}

/// `ldconfig`: the cache of the shared libraries in the trusted folders and in ld.so.conf.d.
pub(super) fn ldconfig(root: &mut Root) -> Result<()> {
    let cache = ldcache::from_tree(&root.tree, &ldcache::DEBIAN_AMD64).context("ld.so.cache")?;
    let mut node = Node::new(Kind::File(cache.into()), 0o644, "effect libc-bin");
    node.mtime = root.clock;
    root.tree.insert("/etc/ld.so.cache", node)?;
    Ok(())
}
