//! The kernel: its image, the modules that are kept, and their indexes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use config::Flavour;
use config::modules::Keep;
use formats::depmod::{Catalog, Sources};
use formats::inflate::{Format, inflate};
use formats::tree::Node;

use super::Root;
use super::unpack::Package;

/// Where modules live.
const FOLDER: &str = "/usr/lib/modules/";

/// Bytes of a module; the largest of Debian's generic kernel has 25 MB.
const LIMIT: u64 = 64 << 20;

/// Whether a file of a kernel package is of use: the kernel itself and its modules.
pub(super) fn wanted(path: &str) -> bool {
    path.starts_with("/boot/vmlinuz-") || below_folder(path).is_some()
}

/// Release and path below its folder, of `/usr/lib/modules/RELEASE/PATH` or the same without /usr.
fn below_folder(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/usr").unwrap_or(path);
    path.strip_prefix("/lib/modules/")?.split_once('/')
}

/// A kernel, ready for initramfs and root.
pub struct Kernel {
    /// The bzImage.
    pub image: Bytes,
    /// Its release, `uname -r`.
    pub release: String,
    /// Modules for stage1 in the order of loading: file name, content (not compressed).
    pub initrd: Vec<(String, Bytes)>,
    /// Modules for the root: path below the modules' folder, the file as the package has it.
    modules: Vec<(String, Node)>,
    /// The indexes that depmod would make, and the lists that the package has.
    indexes: BTreeMap<String, Bytes>,
    /// The `control` files of its packages.
    pub(super) controls: Vec<Bytes>,
}

impl Kernel {
    /// Chooses from the unpacked kernel packages (since 7.0 there are several) as `image.toml` says.
    ///
    /// # Errors
    /// Packages without a kernel or of two kernels, a module that is asked for and not there.
    pub(super) fn new(modules: &config::Modules, packages: Vec<Package>) -> Result<Self> {
        let mut image: Option<(String, Bytes)> = None;
        let mut files: BTreeMap<String, Node> = BTreeMap::new();
        let mut lists = BTreeMap::new();
        let control = |package: &Package| package.control.get("control").cloned();
        let controls = packages.iter().filter_map(control).collect();
        for (path, node) in packages.into_iter().flat_map(|package| package.files) {
            let Some(content) = node.content() else {
                continue;
            };
            let below = below_folder(&path);
            let release = match below {
                Some((release, "vmlinuz")) => Some(release),
                _ => path.strip_prefix("/boot/vmlinuz-"),
            };
            if let Some(release) = release {
                if let Some((other, _)) = &image {
                    bail!("there are two kernels, {other} and {release}: lock one at a time");
                }
                image = Some((release.to_string(), content.clone()));
            } else if let Some((_, file)) = below {
                if file.starts_with("kernel/") {
                    files.insert(file.to_string(), node);
                } else if file.starts_with("modules.") {
                    lists.insert(file.to_string(), content.clone());
                }
            }
        }
        let (release, image) = image.context(
            "the kernel's packages have neither /boot/vmlinuz-… nor vmlinuz beside its modules",
        )?;
        ensure!(
            !files.is_empty(),
            "kernel {release}: its packages have no modules"
        );
        let flavour = if release.contains("cloud") {
            Flavour::Cloud
        } else {
            Flavour::Generic
        };
        let mut kernel = Self {
            image,
            release,
            initrd: Vec::new(),
            modules: Vec::new(),
            indexes: lists,
            controls,
        };
        kernel
            .choose(modules, flavour, files)
            .with_context(|| format!("kernel {}", kernel.release))?;
        Ok(kernel)
    }

    /// Takes what `image.toml` wants, with all that it depends on.
    fn choose(
        &mut self,
        wanted: &config::Modules,
        flavour: Flavour,
        mut files: BTreeMap<String, Node>,
    ) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let list = |name: &str| self.indexes.get(name).cloned().unwrap_or_default();
        let catalog = Catalog::new(Sources {
            modules: files
                .iter()
                .filter_map(|(path, node)| Some((path.clone(), node.content()?.clone())))
                .collect(),
            order: list("modules.order"),
            builtin: list("modules.builtin"),
            builtin_modinfo: list("modules.builtin.modinfo"),
        })?;
        // One configuration serves all kernels: what this one has built in needs no file.
        let here = |names: &mut dyn Iterator<Item = &str>, key: &str| -> Result<Vec<String>> {
            let mut found = Vec::new();
            for name in names {
                if catalog.contains(name) {
                    found.push(name.to_string());
                } else if !catalog.is_builtin(name) {
                    bail!("image.toml: modules.{key}: {name} is neither a module nor built in");
                }
            }
            Ok(found)
        };
        let initrd = here(&mut wanted.initrd.of(flavour), "initrd")?;
        let load = here(&mut wanted.load.iter().map(String::as_str), "load")?;
        let keep = Keep::new(wanted, flavour);
        let roots: Vec<&str> = catalog
            .names()
            .filter(|name| catalog.path(name).is_some_and(|path| keep.keeps(path)))
            .chain(initrd.iter().chain(&load).map(String::as_str))
            .collect();
        let all: BTreeSet<&str> = catalog.closure(&roots, threads)?.into_iter().collect();

        let initrd: Vec<&str> = initrd.iter().map(String::as_str).collect();
        for name in catalog.closure(&initrd, threads)? {
            let path = catalog.path(name).unwrap_or_default();
            let content = files.get(path).and_then(Node::content);
            let content = content.with_context(|| format!("module {name} has no file"))?;
            let plain = inflate(Format::sniff(content), content, LIMIT)
                .with_context(|| format!("module {path}"))?;
            self.initrd.push((format!("{name}.ko"), Bytes::from(plain)));
        }
        for (name, data) in catalog.index(|name| all.contains(name), threads)? {
            self.indexes.insert(name.to_string(), data.into());
        }
        self.modules = all
            .iter()
            .filter_map(|name| files.remove_entry(catalog.path(name)?))
            .collect();
        Ok(())
    }
}

/// Puts the kept modules and their indexes into the root.
pub(super) fn apply(root: &mut Root, kernel: Kernel) -> Result<()> {
    let folder = format!("{FOLDER}{}", kernel.release);
    for (path, mut node) in kernel.modules {
        let path = format!("{folder}/{path}");
        root.parents(&path, &node.origin)?;
        node.mtime = node.mtime.min(root.clock);
        root.tree.add(path, node)?;
    }
    for (name, content) in kernel.indexes {
        root.file(&format!("{folder}/{name}"), 0o644, content, "effect kmod")?;
    }
    Ok(())
}
