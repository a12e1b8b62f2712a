//! The root file system as a tree: packages unpacked, their scripts' effects declared, the
//! overlay laid on top.
//!
//! No maintainer script is run. What they would do is written down here, effect by effect; the
//! oracle test (`imagegen/tests/oracle`) compares the result with a real installation by dpkg.
//!
//! [`unpack`] decodes packages and kernel on all processors and chooses the kernel's modules;
//! [`assemble`] makes the tree of them; [`osrel`] reads from it what the UKI says of itself.
//! Files are never copied: the tree holds the very bytes that came out of a package. Every node's
//! origin says where it is from: `package NAME`, `effect NAME`, `configs/root/PATH`,
//! `FILE.toml TABLE`, `layout`, or `larder` for our programs.
//!
//! The order counts. Effects work on what packages ship; configuration, then the overlay, replace
//! both; accounts and units read what all of these brought; trimming comes after everything that
//! reads a file that may be trimmed, the loader's cache after trimming.

mod accounts;
mod effects;
mod identity;
mod modules;
mod overlay;
mod scripts;
pub(crate) mod secrets;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod trim;
mod units;
mod unpack;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use bytes::Bytes;
use formats::tree::{Kind, Node, Tree};

pub use modules::Kernel;
pub use unpack::{Locked, Package, Unpacked, unpack, unpack_plain};

/// Everything that the root is made of.
pub struct Sources<'a> {
    /// The configuration.
    pub config: &'a config::Config,
    /// The folder `configs/`.
    pub configs: &'a std::path::Path,
    /// The manifest of secrets, if there is one.
    pub secrets: Option<&'a std::path::Path>,
    /// Unpacked packages in the lock's order.
    pub packages: Vec<Package>,
    /// The kernel's modules and what they need.
    pub kernel: Kernel,
    /// Our binaries: path in the image, content.
    pub binaries: Vec<(String, Bytes)>,
    /// Seconds since 1970: no file is younger.
    pub clock: i64,
    /// What `/etc/larder/build.toml` says.
    pub build: Build,
}

pub use identity::{Build, osrel};

/// A tree that is becoming a root file system.
struct Root {
    /// The files.
    tree: Tree,
    /// Time of what we make, seconds since 1970.
    clock: i64,
    /// Names of the packages that were unpacked into it.
    packages: BTreeSet<String>,
}

impl Root {
    /// An empty root with the merged-/usr links that packages expect before they are unpacked.
    fn new(clock: i64) -> Result<Self> {
        let mut root = Self {
            tree: Tree::new(),
            clock,
            packages: BTreeSet::new(),
        };
        let origin = "layout";
        root.dir("/", 0o755, origin)?;
        for dir in [
            "/boot", "/cas", "/dev", "/etc", "/proc", "/run", "/sys", "/usr", "/var",
        ] {
            root.dir(dir, 0o755, origin)?;
        }
        for dir in ["bin", "lib", "lib64", "sbin"] {
            root.dir(&format!("/usr/{dir}"), 0o755, origin)?;
            root.link(&format!("/{dir}"), &format!("usr/{dir}"), origin)?;
        }
        root.dir("/root", 0o700, origin)?;
        root.dir("/tmp", 0o1777, origin)?;
        Ok(root)
    }

    /// A folder, unless it is there.
    fn dir(&mut self, path: &str, mode: u16, origin: &str) -> Result<()> {
        if self.tree.get(path).is_none() {
            self.put(path, Kind::Dir, mode, origin)?;
        }
        Ok(())
    }

    /// A regular file, whatever was there, and the folders that it lies in.
    fn file(&mut self, path: &str, mode: u16, text: impl Into<Bytes>, origin: &str) -> Result<()> {
        self.parents(path, origin)?;
        self.put(path, Kind::File(text.into()), mode, origin)
    }

    /// A symbolic link, whatever was there, and the folders that it lies in.
    fn link(&mut self, path: &str, target: &str, origin: &str) -> Result<()> {
        self.parents(path, origin)?;
        self.put(path, Kind::Symlink(target.into()), 0o777, origin)
    }

    fn parents(&mut self, path: &str, origin: &str) -> Result<()> {
        for (at, _) in path.match_indices('/').skip(1) {
            self.dir(&path[..at], 0o755, origin)?;
        }
        Ok(())
    }

    fn put(&mut self, path: &str, kind: Kind, mode: u16, origin: &str) -> Result<()> {
        let mut node = Node::new(kind, mode, origin);
        node.mtime = self.clock;
        self.tree.insert(path, node)?;
        Ok(())
    }

    fn chown(&mut self, path: &str, uid: u32, gid: u32) -> Result<()> {
        let node = self
            .tree
            .get_mut(path)
            .with_context(|| format!("{path} is not there"))?;
        (node.uid, node.gid) = (uid, gid);
        Ok(())
    }

    /// The text of a file that must be there.
    fn text(&self, path: &str) -> Result<String> {
        let found = self
            .tree
            .resolve(path)
            .with_context(|| format!("{path} is not there"))?;
        let node = self.tree.get(&found).and_then(Node::content);
        let bytes = node.with_context(|| format!("{path} is not a regular file"))?;
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

/// Puts the root together.
///
/// # Errors
/// Two packages that give different things at one path, an effect whose input is missing, an
/// overlay file that can't be read, a unit that does not exist: each names path and source.
pub fn assemble(sources: Sources<'_>) -> Result<Tree> {
    let mut root = Root::new(sources.clock)?;
    let config = sources.config;
    let control = |package: &Package| package.control.get("control").cloned();
    let mut controls: Vec<Bytes> = sources.packages.iter().filter_map(control).collect();
    controls.extend(sources.kernel.controls.iter().cloned());
    for package in sources.packages {
        unpack::merge(&mut root, package)?;
    }
    modules::apply(&mut root, sources.kernel)?;
    effects::apply(&mut root, config)?;
    for file in config::render::image_files(config) {
        root.file(&file.path, file.mode, file.content, &file.origin)?;
    }
    overlay::apply(&mut root, &sources.configs.join("root"))?;
    for (path, content) in sources.binaries {
        root.file(&path, 0o755, content, "larder")?;
    }
    identity::apply(&mut root, sources.configs, &sources.build)?;
    accounts::apply(&mut root, &config.system)?;
    units::apply(&mut root, &config.image.units)?;
    secrets::apply(&mut root, sources.secrets)?;
    state::apply(&mut root)?;
    status::apply(&mut root, &controls)?;
    trim::apply(&mut root, &config::trim::Rules::new(&config.image.trim)?)?;
    // Last, so that it names no library that the rules drop.
    effects::ldconfig(&mut root)?;
    root.tree.check()?;
    Ok(root.tree)
}
