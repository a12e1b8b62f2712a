//! The initramfs: stage1, the kernel modules that it loads, and the list of them.

use anyhow::{Context, Result};
use bytes::Bytes;
use formats::cpio;
use formats::tree::{Kind, Node, Tree};

/// A module in the order of loading.
pub(super) struct Module {
    /// File name, `dm-verity.ko`.
    pub(super) name: String,
    /// The module, not compressed: all of the archive is.
    pub(super) content: Bytes,
}

/// Packs `/init`, `/modules/*` and `/modules/load`, compressed by zstd, which every kernel that
/// Debian builds unpacks.
pub(super) fn pack(stage1: &Bytes, modules: &[Module], clock: i64) -> Result<Vec<u8>> {
    let mut tree = Tree::new();
    let mut put = |path: &str, kind: Kind, mode: u16| -> Result<()> {
        let mut node = Node::new(kind, mode, "initramfs");
        node.mtime = clock;
        Ok(tree.insert(path, node)?)
    };
    for folder in ["/", "/dev", "/modules", "/proc", "/run", "/sys", "/sysroot"] {
        put(folder, Kind::Dir, 0o755)?;
    }
    // The kernel opens it for PID 1 before anybody mounts a /dev.
    put("/dev/console", Kind::CharDevice(5, 1), 0o600)?;
    put("/init", Kind::File(stage1.clone()), 0o755)?;
    let mut list = String::new();
    for module in modules {
        put(
            &format!("/modules/{}", module.name),
            Kind::File(module.content.clone()),
            0o644,
        )?;
        list.push_str(&module.name);
        list.push('\n');
    }
    put("/modules/load", Kind::File(list.into()), 0o644)?;
    let clock = u32::try_from(clock).context("the lock's date is no time of this century")?;
    let archive = cpio::write(&tree, clock)?;
    // The kernel takes a window of at most 8 MiB; level 19 has that.
    zstd::bulk::compress(&archive, 19).context("compressing the initramfs")
}
