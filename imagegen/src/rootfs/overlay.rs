//! The overlay `configs/root/`: files that go into the image as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use formats::tree::Kind;

use super::Root;

/// Lays every file below `dir` over the tree. Files are root's; one that may be executed is 0755,
/// any other 0644 (the checkout's umask must not change the image).
pub(super) fn apply(root: &mut Root, dir: &Path) -> Result<()> {
    let mut names: Vec<_> = walk(dir)?;
    names.sort();
    for name in names {
        let from = dir.join(&name);
        let path = format!("/{name}");
        let origin = format!("configs/root/{name}");
        let at = || format!("overlay {}", from.display());
        let meta = fs::symlink_metadata(&from).with_context(at)?;
        if meta.is_symlink() {
            let target = fs::read_link(&from).with_context(at)?;
            let target = target
                .to_str()
                .with_context(|| format!("{}: not UTF-8", from.display()))?;
            root.link(&path, target, &origin)?;
        } else if meta.is_file() {
            let mode = if meta.permissions().mode() & 0o100 != 0 {
                0o755
            } else {
                0o644
            };
            root.file(
                &path,
                mode,
                Bytes::from(fs::read(&from).with_context(at)?),
                &origin,
            )?;
        } else if meta.is_dir() {
            root.parents(&path, &origin)?;
            if !matches!(root.tree.resolve(&path).and_then(|p| root.tree.get(&p)), Some(n) if n.kind == Kind::Dir)
            {
                root.dir(&path, 0o755, &origin)?;
            }
        } else {
            bail!("overlay {}: neither file, folder nor link", from.display());
        }
    }
    Ok(())
}

/// All paths below `dir`, relative, folders before what is in them.
fn walk(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut todo = vec![String::new()];
    while let Some(below) = todo.pop() {
        let folder = dir.join(&below);
        let at = || format!("overlay folder {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(at)? {
            let entry = entry.with_context(at)?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .with_context(|| format!("{}: {name:?} is not UTF-8", folder.display()))?;
            let path = if below.is_empty() {
                name.to_string()
            } else {
                format!("{below}/{name}")
            };
            if entry.file_type().with_context(at)?.is_dir() {
                todo.push(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}
