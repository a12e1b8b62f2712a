//! The image that is to be written, checked as a whole before a disk is looked at.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use disk::superblock::{Ext4, HALF, OFFSET};
use formats::gpt::{Defect, Role};
use formats::pe::Pe;
use formats::region::{ReadAt, Region};
use formats::tree::{Kind, Node, Tree};
use formats::verity::{self, RootHash};
use packages::Digest;
use sha2::{Digest as _, Sha256};

use super::meter::Meter;
use super::source;
use crate::image::{self, Esp};
use crate::manifest::{Manifest, Part as Recorded};

/// Where the firmware looks for a boot loader (UEFI specification 2.10, 3.5.1.1).
const LOADER: &str = "/EFI/BOOT/BOOTX64.EFI";
/// Id of our images.
const ID: &str = "larder";
/// Bytes that are hashed at once.
const PIECE: usize = 1 << 20;

/// A checked image.
pub(super) struct Image {
    /// Its path, as given.
    pub(super) path: PathBuf,
    /// Version by the label of slot a.
    pub(super) version: String,
    /// Root hash by the PARTUUIDs of slot a; the boot image asks for the same.
    pub(super) root_hash: RootHash,
    /// The manifest that it was checked against.
    pub(super) manifest: Option<PathBuf>,
    /// Folders and files of its ESP.
    pub(super) esp: Tree,
    /// Label of its ESP's file system.
    pub(super) esp_label: String,
    image: image::Image<File>,
    parts: Vec<Part>,
}

/// What is copied of a partition: its first bytes, as far as they mean something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    role: Role,
    start: u64,
    length: u64,
}

impl Image {
    /// Opens and checks the image at `path`: the manifest's checksums if there is one, the
    /// partition table, the ESP with a boot loader and a boot image for this root, the root against
    /// its hash tree, state and `/cas` never used.
    pub(super) fn open(path: &Path, meter: &Meter) -> Result<Self> {
        let beside = Manifest::path_beside(path);
        let manifest = match beside.exists() {
            true => Some(Manifest::load(&beside)?),
            false => None,
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let outputs = manifest.iter().flat_map(|it| &it.outputs);
        let output = outputs.into_iter().find(|it| Some(&*it.name) == name);
        let file = Arc::new(source::open(path, output, meter)?);
        let image = Self::read(path, Arc::clone(&file))?;
        let Some(manifest) = manifest else {
            return Ok(image);
        };
        let differ = || format!("{} and {} differ", path.display(), beside.display());
        let size = file.size()?;
        if manifest.size != size {
            let is = format!("it has {size} bytes, not {}", manifest.size);
            return Err(anyhow::anyhow!(is)).with_context(differ);
        }
        for part in &manifest.parts {
            check_part(&file, part).with_context(differ)?;
        }
        Ok(Self {
            manifest: Some(beside),
            ..image
        })
    }

    fn read(path: &Path, file: Arc<File>) -> Result<Self> {
        let what = path.display();
        let image = image::Image::read(file, path)?;
        if let Some(defect) = image.table().defects.first() {
            let cut = matches!(
                defect,
                Defect::OutOfBounds { .. } | Defect::NotAtEnd { .. } | Defect::Header { .. }
            );
            let hint = if cut { " (is it truncated?)" } else { "" };
            bail!("{what}, {} bytes, is damaged{hint}: {defect}", image.size());
        }
        for role in Role::ALL {
            ensure!(
                role == Role::Cas || image.part(role).is_some(),
                "{what} is no image to flash: it has no partition {}",
                role.name()
            );
        }
        let mut slots = image.slots().into_iter();
        let (Some(slot), Some(free)) = (slots.next(), slots.next()) else {
            bail!("{what} is no image to flash: it has no two slots");
        };
        let version = match slot.holds {
            Some((id, version)) if id == ID && free.holds.is_none() => version,
            _ => bail!("{what} is no image to flash: its slots are not as a build leaves them"),
        };
        let root_hash = slot.root_hash;
        let (root, tree) = (image.region(Role::RootA)?, image.region(Role::RootAVerity)?);
        let verified = verity::verify(&root, &tree, &root_hash)
            .with_context(|| image.at(Role::RootA))
            .context("the root is damaged")?;
        let esp = image.esp()?;
        check_boot(&esp, &root_hash).with_context(|| image.at(Role::Esp))?;
        let mut parts = Vec::new();
        for part in image.parts() {
            let length = match part.role {
                Role::RootA => verified.data_blocks * verity::BLOCK_SIZE,
                Role::RootAVerity => verified.tree_bytes,
                Role::State | Role::Cas => {
                    pristine(&image.region(part.role)?).with_context(|| image.at(part.role))?
                }
                Role::Bios | Role::Esp | Role::RootB | Role::RootBVerity => continue,
            };
            parts.push(Part {
                role: part.role,
                start: part.entry.start,
                length,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            version,
            root_hash,
            manifest: None,
            esp: esp_tree(&esp)?,
            esp_label: esp.label,
            parts,
            image,
        })
    }

    /// The bytes to copy of a partition; `None` if the image has none of that role, or nothing
    /// to copy.
    pub(super) fn part(&self, role: Role) -> Option<Region<'_, File>> {
        let part = self.parts.iter().find(|part| part.role == role)?;
        Some(Region::new(&**self.image.device(), part.start, part.length))
    }

    /// The ranges of [`Image::part`] that may hold something else than zeros.
    pub(super) fn data(&self, role: Role) -> Vec<Range<u64>> {
        let Some(part) = self.parts.iter().find(|part| part.role == role) else {
            return Vec::new();
        };
        let ranges = self.image.data_within(part.start..part.start + part.length);
        let relative = |range: Range<u64>| range.start - part.start..range.end - part.start;
        ranges.into_iter().map(relative).collect()
    }
}

/// The folders and files of an ESP.
pub(super) fn esp_tree(esp: &Esp) -> Result<Tree> {
    let origin = "the image's ESP";
    let mut tree = Tree::new();
    for folder in &esp.folders {
        tree.insert(folder, Node::new(Kind::Dir, 0o755, origin))?;
    }
    for file in &esp.files {
        let kind = Kind::File(file.content.clone());
        tree.insert(&file.path, Node::new(kind, 0o644, origin))?;
    }
    Ok(tree)
}

/// There is a boot loader, and every boot image asks for the root of this image.
pub(super) fn check_boot(esp: &Esp, root_hash: &RootHash) -> Result<()> {
    let loader = esp
        .file(LOADER)
        .with_context(|| format!("no boot loader {LOADER}"))?;
    Pe::parse(loader, "the boot loader").context(LOADER)?;
    let ukis = esp.ukis()?;
    ensure!(!ukis.is_empty(), "no boot image in /EFI/Linux");
    for uki in ukis {
        let asked = uki.root_hash().with_context(|| uki.path.clone())?;
        ensure!(
            asked == *root_hash,
            "{} boots the root {asked}, the image holds {root_hash}",
            uki.path
        );
    }
    Ok(())
}

/// A part of the image is what the manifest says.
fn check_part(file: &File, part: &Recorded) -> Result<()> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    let content = Region::new(file, part.offset, part.content);
    while at < part.content {
        let room = PIECE.min((part.content - at) as usize);
        content
            .read_exact_at(&mut piece[..room], at)
            .with_context(|| format!("{} cannot be read", part.name))?;
        hash.update(&piece[..room]);
        at += room as u64;
    }
    let digest = Digest(hash.finalize().into());
    ensure!(
        digest == part.sha256,
        "the SHA-256 of {} is {digest}, not {}",
        part.name,
        part.sha256
    );
    Ok(())
}

/// Size of a file system that was never used, in bytes.
fn pristine<D: ReadAt + ?Sized>(part: &D) -> Result<u64> {
    let mut half = [0; HALF];
    part.read_exact_at(&mut half, OFFSET)?;
    let found = Ext4::parse(&half).context("no file system")?;
    ensure!(
        found.is_pristine(),
        "the file system {:?} has been used (the image was booted without a copy); build a new image",
        found.label
    );
    let size = found.blocks.saturating_mul(found.block_size.into());
    let room = part.size()?;
    ensure!(
        size > 0 && size <= room,
        "a file system of {size} bytes in {room}"
    );
    Ok(size)
}
