//! The image that is to be written, checked as a whole before a disk is looked at.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use disk::superblock::{Ext4, HALF, OFFSET};
use formats::fat;
use formats::gpt::{self, Defect, Entry, Role, SectorSize};
use formats::pe::Pe;
use formats::region::{ReadAt, Region};
use formats::tree::{Kind, Node, Tree};
use formats::verity::{self, RootHash};

use super::manifest::Manifest;
use super::meter::Meter;
use super::source;

/// Prefix of the label of slot a.
const LABEL: &str = "larder_";
/// Where the firmware looks for a boot loader (UEFI specification 2.10, 3.5.1.1).
pub(super) const LOADER: &str = "/EFI/BOOT/BOOTX64.EFI";
/// Folder of the boot images.
const UKIS: &str = "/EFI/Linux/";

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
    file: File,
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
        let manifest = Manifest::beside(path)?;
        let sum = manifest.as_ref().and_then(|(_, it)| it.output(path));
        let file = source::open(path, sum, meter)?;
        let image = Self::read(path, file)?;
        let Some((at, manifest)) = manifest.filter(|(_, it)| it.knows(path)) else {
            return Ok(image);
        };
        let table = gpt::read(&image.file, Some(SectorSize::S512))?;
        for (role, entry) in roles(&table)? {
            let part = Region::new(&image.file, entry.start, entry.size);
            manifest
                .check(role, &part)
                .with_context(|| format!("{} and {} differ", path.display(), at.display()))?;
        }
        Ok(Self {
            manifest: Some(at),
            ..image
        })
    }

    fn read(path: &Path, file: File) -> Result<Self> {
        let what = path.display();
        let size = file.size().with_context(|| format!("cannot read {what}"))?;
        let table = gpt::read(&file, Some(SectorSize::S512))
            .with_context(|| format!("{what} is no disk image"))?;
        if let Some(defect) = table.defects.first() {
            let cut = matches!(
                defect,
                Defect::OutOfBounds { .. } | Defect::NotAtEnd { .. } | Defect::Header { .. }
            );
            let hint = if cut { " (is it truncated?)" } else { "" };
            bail!("{what}, {size} bytes, is damaged{hint}: {defect}");
        }
        let entries = roles(&table).with_context(|| format!("{what} is no image of Larder's"))?;
        let entry = |role| {
            entries
                .iter()
                .find(|(its, _)| *its == role)
                .map(|(_, entry)| *entry)
                .with_context(|| format!("{what}: no partition {}", Role::name(role)))
        };
        let root = entry(Role::RootA)?;
        let tree = entry(Role::RootAVerity)?;
        let version = root.label[LABEL.len()..].to_owned();
        let root_hash = root_hash(root, tree);
        let region = |entry: &Entry| Region::new(&file, entry.start, entry.size);
        let verified = verity::verify(&region(root), &region(tree), &root_hash)
            .with_context(|| format!("{what}: the root is damaged"))?;
        let esp = entry(Role::Esp)?;
        let (esp, esp_label) =
            read_esp(&region(esp)).with_context(|| format!("{what}: the ESP"))?;
        check_boot(&esp, &root_hash).with_context(|| format!("{what}: the ESP"))?;
        let mut parts = vec![
            Part {
                role: Role::RootA,
                start: root.start,
                length: verified.data_blocks * verity::BLOCK_SIZE,
            },
            Part {
                role: Role::RootAVerity,
                start: tree.start,
                length: verified.tree_bytes,
            },
        ];
        for (role, entry) in &entries {
            if matches!(role, Role::State | Role::Cas) {
                let length = pristine(&region(entry))
                    .with_context(|| format!("{what}: partition {}", role.name()))?;
                parts.push(Part {
                    role: *role,
                    start: entry.start,
                    length,
                });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            version,
            root_hash,
            manifest: None,
            esp,
            esp_label,
            parts,
            file,
        })
    }

    /// The bytes to copy of a partition; `None` if the image has none of that role, or nothing
    /// to copy.
    pub(super) fn part(&self, role: Role) -> Option<Region<'_, File>> {
        let part = self.parts.iter().find(|part| part.role == role)?;
        Some(Region::new(&self.file, part.start, part.length))
    }

    /// The ranges of [`Image::part`] that may hold something else than zeros.
    pub(super) fn data(&self, role: Role) -> Result<Vec<Range<u64>>> {
        let Some(part) = self.parts.iter().find(|part| part.role == role) else {
            return Ok(Vec::new());
        };
        let mut ranges = Vec::new();
        vm::for_each_extent(&self.file, |start, end| {
            let start = start.max(part.start);
            let end = end.min(part.start + part.length);
            if start < end {
                ranges.push(start - part.start..end - part.start);
            }
            Ok(())
        })
        .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(ranges)
    }
}

/// The partitions by what they are for; types and labels must be those of a Larder image.
fn roles(table: &gpt::Table) -> Result<Vec<(Role, &Entry)>> {
    let entries = table.partitions();
    ensure!(
        entries.len() == Role::ALL.len() || entries.len() == Role::ALL.len() - 1,
        "it has {} partitions",
        entries.len()
    );
    Role::ALL
        .into_iter()
        .zip(entries)
        .map(|(role, entry)| {
            let label = match role {
                Role::RootA | Role::RootAVerity => entry.label.starts_with(LABEL),
                Role::RootB | Role::RootBVerity => entry.label == gpt::EMPTY_SLOT,
                Role::Bios | Role::Esp | Role::State | Role::Cas => entry.label == role.name(),
            };
            ensure!(
                label && entry.type_guid == role.type_guid(),
                "its partition {} is {:?}, not {}",
                entry.number,
                entry.label,
                role.name()
            );
            Ok((role, entry))
        })
        .collect()
}

/// The PARTUUIDs of root and tree are the halves of the root hash.
fn root_hash(root: &Entry, tree: &Entry) -> RootHash {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(root.guid.as_bytes());
    bytes[16..].copy_from_slice(tree.guid.as_bytes());
    RootHash(bytes)
}

/// Everything on an ESP, and its label.
pub(super) fn read_esp<D: ReadAt + ?Sized>(esp: &D) -> Result<(Tree, String)> {
    let volume = fat::Volume::open(esp, fat::Limits::default())?;
    let mut tree = Tree::new();
    for entry in volume.list()? {
        let kind = match entry.folder {
            true => Kind::Dir,
            false => Kind::File(volume.content(&entry)?.into()),
        };
        tree.insert(entry.path, Node::new(kind, 0o644, "the image's ESP"))?;
    }
    Ok((tree, volume.label().to_owned()))
}

/// There is a boot loader, and every boot image asks for the root of this image.
pub(super) fn check_boot(esp: &Tree, root_hash: &RootHash) -> Result<()> {
    let loader = esp
        .get(LOADER)
        .and_then(Node::content)
        .with_context(|| format!("no boot loader {LOADER}"))?;
    Pe::parse(loader, "the boot loader").with_context(|| LOADER)?;
    let mut found = false;
    for (path, node) in esp.iter() {
        let (Some(file), true) = (node.content(), path.starts_with(UKIS)) else {
            continue;
        };
        let asked = asked_root(file).with_context(|| path.to_owned())?;
        ensure!(
            asked == *root_hash,
            "{path} boots the root {asked}, the image holds {root_hash}"
        );
        found = true;
    }
    ensure!(found, "no boot image in {UKIS}");
    Ok(())
}

/// The root hash on the command line of a boot image.
fn asked_root(uki: &[u8]) -> Result<RootHash> {
    let uki = Pe::parse(uki, "the boot image")?;
    let cmdline = uki.section(".cmdline").context("it has no command line")?;
    let cmdline = String::from_utf8_lossy(cmdline.content());
    let hash = cmdline
        .trim_end_matches('\0')
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("roothash="))
        .context("its command line has no roothash=")?;
    Ok(hash.parse()?)
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
