//! Which kernel modules the root keeps: [`Modules::keep`], compiled.

use crate::glob::Pattern;
use crate::{Flavour, Modules};

/// The patterns of one flavour, ready for thousands of modules.
#[derive(Clone, Debug)]
pub struct Keep {
    names: Vec<Pattern>,
    paths: Vec<Pattern>,
}

impl Keep {
    /// Compiles the patterns.
    #[must_use]
    pub fn new(modules: &Modules, flavour: Flavour) -> Self {
        let (paths, names) = modules
            .keep
            .of(flavour)
            .partition::<Vec<_>, _>(|p| p.contains('/'));
        let compile = |list: Vec<&str>| list.into_iter().map(|p| Pattern::new(&fold(p))).collect();
        Self {
            names: compile(names),
            paths: compile(paths),
        }
    }

    /// Whether a module stays: `path` is below `/usr/lib/modules/RELEASE`, as in
    /// `kernel/net/tls/tls.ko.xz`.
    #[must_use]
    pub fn keeps(&self, path: &str) -> bool {
        let path = fold(stem(path));
        let name = path.rsplit('/').next().unwrap_or_default();
        self.names.iter().any(|pattern| pattern.matches(name))
            || self.paths.iter().any(|pattern| pattern.matches(&path))
    }
}

/// The name of a module as the kernel shows it: `dm_verity` of `kernel/drivers/md/dm-verity.ko.xz`.
#[must_use]
pub fn name(path: &str) -> String {
    fold(stem(path).rsplit('/').next().unwrap_or_default())
}

/// The path without `.ko`, `.ko.xz` and the like.
fn stem(path: &str) -> &str {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    let end = path[file..]
        .find(".ko")
        .map_or(path.len(), |dot| file + dot);
    &path[..end]
}

fn fold(text: &str) -> String {
    text.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByFlavour;

    #[test]
    fn names_and_folders() {
        let list = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let modules = Modules {
            initrd: ByFlavour::default(),
            load: Vec::new(),
            keep: ByFlavour {
                common: list(&["dm-verity", "virtio_*", "kernel/net/vmw_vsock/**"]),
                cloud: Vec::new(),
                generic: list(&["e1000"]),
            },
        };
        let cloud = Keep::new(&modules, Flavour::Cloud);
        let generic = Keep::new(&modules, Flavour::Generic);
        for (path, expected) in [
            ("kernel/drivers/md/dm-verity.ko.xz", true),
            ("kernel/drivers/block/virtio_blk.ko", true),
            ("kernel/net/vmw_vsock/vsock.ko.zst", true),
            ("kernel/net/tls/tls.ko.xz", false),
        ] {
            assert_eq!(cloud.keeps(path), expected, "{path}");
        }
        let e1000 = "kernel/drivers/net/ethernet/intel/e1000/e1000.ko.xz";
        assert!(generic.keeps(e1000) && !cloud.keeps(e1000));
        assert!(!generic.keeps("kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz"));
        assert_eq!(name("kernel/drivers/md/dm-verity.ko.xz"), "dm_verity");
    }
}
