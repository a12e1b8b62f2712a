//! What an image is, put together from itself and its manifest: what `inspect` shows and `diff`
//! compares.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use formats::gpt::Role;
use formats::tree::Tree;
use packages::Digest;

use super::esp::UKIS;
use super::{Device, Image, Slot, Uki, installed_packages, package_files};
use crate::manifest::{File, GPT, GPT_BACKUP, Manifest, Type};

/// What an image is.
#[derive(Clone, Debug)]
pub struct Description {
    /// Where it was read.
    pub source: String,
    /// Name of the image.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Date of its lock, seconds since 1970; only the manifest knows.
    pub clock: Option<i64>,
    /// Debian architecture; only the manifest knows.
    pub architecture: Option<String>,
    /// What compiled our binaries; only the manifest knows.
    pub compiler: Option<String>,
    /// Kernel release.
    pub kernel: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Root hash of the dm-verity tree.
    pub root_hash: Digest,
    /// PCR 11 as the boot stub leaves it.
    pub pcr11: Digest,
    /// Sections of the boot image; a manifest alone knows none.
    pub sections: BTreeMap<String, Digest>,
    /// Files of the ESP but for boot images, by path.
    pub esp: BTreeMap<String, Digest>,
    /// Sizes of the partitions in bytes, by what they are for.
    pub partitions: BTreeMap<String, u64>,
    /// The packages by name.
    pub packages: BTreeMap<String, Package>,
    /// Everything in the root by path, see [`by_path`].
    pub files: BTreeMap<String, File>,
    /// The root with contents; a manifest alone has none.
    pub root: Option<Tree>,
}

/// A package of a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Version.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// Suite and SHA-256 of the .deb; only the manifest knows.
    pub source: Option<(String, Digest)>,
}

impl Description {
    /// What the image that a disk boots is. A manifest that describes another root is not used.
    ///
    /// # Errors
    /// No boot image, no root that it boots, or what is wrong with either.
    pub fn of_image<D: Device>(image: &Image<D>, manifest: Option<&Manifest>) -> Result<Self> {
        let esp = image.esp()?;
        let ukis = esp.ukis().with_context(|| image.at(Role::Esp))?;
        let uki = ukis
            .first()
            .with_context(|| format!("{}: no boot image on the ESP", image.path().display()))?;
        let hash = uki.root_hash().with_context(|| uki.path.clone())?;
        let slots = image.slots();
        let slot = slots
            .iter()
            .find(|slot| slot.root_hash == hash)
            .with_context(|| {
                format!(
                    "{}: no partition holds the root {hash} that {} boots",
                    image.path().display(),
                    uki.path
                )
            })?;
        let root = image.root(slot)?;
        let manifest = manifest.filter(|manifest| manifest.root_hash.0 == hash.0);
        let mut out = Self::put_together(image.path(), uki, slot, root, manifest);
        out.esp = esp
            .files
            .iter()
            .map(|file| (file.path.clone(), Digest::of(&file.content)))
            .filter(|(path, _)| !path.starts_with(UKIS))
            .collect();
        out.partitions = image
            .parts()
            .iter()
            .map(|part| (part.role.name().to_string(), part.entry.size))
            .collect();
        Ok(out)
    }

    fn put_together(
        path: &Path,
        uki: &Uki,
        slot: &Slot,
        root: Tree,
        manifest: Option<&Manifest>,
    ) -> Self {
        let field = |key, other: Option<&String>| {
            let value = uki.os_release(key).map(str::to_string);
            value.or_else(|| other.cloned()).unwrap_or_default()
        };
        let holds = slot.holds.as_ref();
        let mut files = by_path(File::all_of(&root));
        let mut packages = BTreeMap::new();
        match manifest {
            Some(manifest) => {
                packages = manifest_packages(manifest);
                for file in &manifest.files {
                    if let Some(own) = files.get_mut(&file.path) {
                        own.origin.clone_from(&file.origin);
                    }
                }
            }
            None => {
                for package in installed_packages(&root) {
                    packages.insert(
                        package.name,
                        Package {
                            version: package.version,
                            arch: package.arch,
                            source: None,
                        },
                    );
                }
                for (path, package) in package_files(&root) {
                    if let Some(own) = files.get_mut(&path) {
                        own.origin = format!("package {package}");
                    }
                }
            }
        }
        Self {
            source: path.display().to_string(),
            id: field("IMAGE_ID", holds.map(|(id, _)| id)),
            version: field("IMAGE_VERSION", holds.map(|(_, version)| version)),
            clock: manifest.map(|manifest| manifest.clock),
            architecture: manifest.map(|manifest| manifest.architecture.clone()),
            compiler: manifest.map(|manifest| manifest.compiler.clone()),
            kernel: uki.uname.clone(),
            cmdline: uki.cmdline.clone(),
            root_hash: Digest(slot.root_hash.0),
            pcr11: uki.pcr11,
            sections: uki
                .sections
                .iter()
                .map(|section| (section.name.clone(), section.sha256))
                .collect(),
            esp: BTreeMap::new(),
            partitions: BTreeMap::new(),
            packages,
            files,
            root: Some(root),
        }
    }

    /// What a manifest says that an image is.
    pub fn of_manifest(path: &Path, manifest: Manifest) -> Self {
        Self {
            source: path.display().to_string(),
            sections: BTreeMap::new(),
            esp: manifest
                .esp
                .iter()
                .map(|file| (file.path.clone(), file.sha256))
                .filter(|(path, _)| !path.starts_with(UKIS))
                .collect(),
            partitions: manifest
                .parts
                .iter()
                .filter(|part| part.name != GPT && part.name != GPT_BACKUP)
                .map(|part| (part.name.clone(), part.size))
                .collect(),
            packages: manifest_packages(&manifest),
            id: manifest.id,
            version: manifest.version,
            clock: Some(manifest.clock),
            architecture: Some(manifest.architecture),
            compiler: Some(manifest.compiler),
            kernel: manifest.kernel,
            cmdline: manifest.cmdline,
            root_hash: manifest.root_hash,
            pcr11: manifest.pcr11,
            files: by_path(manifest.files),
            root: None,
        }
    }

    /// Bytes of all files of the root.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

fn manifest_packages(manifest: &Manifest) -> BTreeMap<String, Package> {
    let package = |package: &crate::manifest::Package| Package {
        version: package.version.clone(),
        arch: package.arch.clone(),
        source: Some((package.suite.clone(), package.sha256)),
    };
    manifest
        .packages
        .iter()
        .map(|p| (p.name.clone(), package(p)))
        .collect()
}

/// Records by path, with all names of one file alike: each is a regular file with its content's
/// hash, and the first has the size. `lost+found`, which a file system has by itself, is left out.
pub fn by_path(files: Vec<File>) -> BTreeMap<String, File> {
    let mut out: BTreeMap<String, File> = files
        .into_iter()
        .filter(|file| file.path != "/lost+found")
        .map(|file| (file.path.clone(), file))
        .collect();
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in out.values().filter(|file| file.kind == Type::Hardlink) {
        let target = file.target.clone().unwrap_or_default();
        groups.entry(target).or_default().push(file.path.clone());
    }
    for (target, links) in groups {
        let Some(file) = out.get(&target).cloned() else {
            continue;
        };
        let first = links.iter().min().filter(|first| **first < target).cloned();
        for path in links.into_iter().chain([target]) {
            let is_first = first.as_ref().unwrap_or(&file.path) == &path;
            let origin = out.get(&path).map(|own| own.origin.clone());
            out.insert(
                path.clone(),
                File {
                    path,
                    size: if is_first { file.size } else { 0 },
                    origin: origin.unwrap_or_default(),
                    ..file.clone()
                },
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use formats::tree::{Kind, Node};

    use super::*;

    #[test]
    fn of_the_names_of_a_file_none_is_special() {
        let build = |with_content: &str, names: [&str; 2]| {
            let mut tree = Tree::new();
            let file = Node::new(Kind::File("content".into()), 0o755, "x");
            tree.insert(with_content, file).unwrap();
            for name in names {
                let link = Node::new(Kind::Hardlink(with_content.into()), 0, "x");
                tree.insert(name, link).unwrap();
            }
            by_path(File::all_of(&tree))
        };
        let files = build("/b", ["/a", "/c"]);
        assert_eq!(files, build("/a", ["/b", "/c"]));
        assert_eq!(files, build("/c", ["/a", "/b"]));
        let sizes: Vec<_> = files.values().map(|file| file.size).collect();
        assert_eq!(sizes, [7, 0, 0]);
        assert_eq!(files["/c"].mode, files["/a"].mode);
    }
}
