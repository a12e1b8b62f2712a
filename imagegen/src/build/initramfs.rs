//! The initramfs: stage1, the kernel modules that it loads, and the list of them.

use anyhow::{Context, Result};
use bytes::Bytes;
use formats::cpio;
use formats::tree::{Kind, Node, Tree};

/// Level of Zstandard: 19 takes seconds and saves a tenth.
const LEVEL: i32 = 9;

/// Packs `/init`, `/modules/*` and `/modules/load` (`modules`: file name and content, in the order of
/// loading), compressed by zstd, which every kernel that Debian builds unpacks.
pub(super) fn pack(stage1: &Bytes, modules: &[(String, Bytes)], clock: i64) -> Result<Vec<u8>> {
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
    for (name, content) in modules {
        put(
            &format!("/modules/{}", name),
            Kind::File(content.clone()),
            0o644,
        )?;
        list.push_str(name);
        list.push('\n');
    }
    put("/modules/load", Kind::File(list.into()), 0o644)?;
    let clock = u32::try_from(clock).context("the lock's date is no time of this century")?;
    let archive = cpio::write(&tree, clock)?;
    // The kernel takes a window of at most 8 MiB, which this level does not reach.
    zstd::bulk::compress(&archive, LEVEL).context("compressing the initramfs")
}
