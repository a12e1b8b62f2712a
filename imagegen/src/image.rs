//! An image, or a disk that was made from one, opened as typed parts.
//!
//! [`Image::open`] takes a raw image file or a block device and names its partitions by what they
//! are for, whoever made their GUIDs and however large they are; it reads nothing but the partition
//! table. What is in them is read when it is asked for: [`Image::esp`], [`Esp::ukis`],
//! [`Image::root`].

mod description;
mod esp;
mod facts;
mod uki;

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use formats::ext4;
use formats::gpt::{self, EMPTY_SLOT, Entry, Role, Table};
use formats::region::{Extents, ReadAt, Region};
use formats::tree::Tree;
use formats::verity::RootHash;

pub use description::{Description, Package, by_path};
pub use esp::{Esp, EspFile, tries_left};
pub(crate) use facts::STATUS;
pub use facts::{Installed, Units, installed_packages, package_files, units};
pub use uki::{Section, Uki};

/// What an image is read from: a file or a device, or bytes in a test.
pub trait Device: ReadAt + Send + Sync + 'static {}
impl<D: ReadAt + Send + Sync + 'static> Device for D {}

/// An opened image or disk.
#[derive(Debug)]
pub struct Image<D = File> {
    path: PathBuf,
    device: Arc<D>,
    size: u64,
    table: Table,
    parts: Vec<Part>,
    /// What is not a hole, where that is known.
    data: Option<Extents>,
}

/// A partition and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is for.
    pub role: Role,
    /// Its entry in the table.
    pub entry: Entry,
}

/// One of the two places for a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// [`Role::RootA`] or [`Role::RootB`].
    pub role: Role,
    /// Id and version of the image in it by its label; `None` if it is empty.
    pub holds: Option<(String, String)>,
    /// What its two PARTUUIDs spell: the root hash, unless it is empty.
    pub root_hash: RootHash,
}

impl Slot {
    /// Role of its hash tree.
    pub fn tree(&self) -> Role {
        match self.role {
            Role::RootB => Role::RootBVerity,
            _ => Role::RootAVerity,
        }
    }
}

impl Image<File> {
    /// Opens a raw image file or a block device.
    ///
    /// # Errors
    /// What cannot be opened, is no raw image (a compressed one is told apart) or has no partition
    /// table of Larder's, in words.
    pub fn open(path: &Path) -> Result<Self> {
        let kind = fs::metadata(path)
            .with_context(|| format!("cannot open {}", path.display()))?
            .file_type();
        ensure!(
            kind.is_file() || kind.is_block_device(),
            "{} is {}; an image is a raw file or a block device",
            path.display(),
            if kind.is_dir() {
                "a folder"
            } else {
                "neither file nor disk"
            }
        );
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut magic = [0; 4];
        let read = ReadAt::read_exact_at(&file, &mut magic, 0).is_ok();
        if read && magic == [0x28, 0xB5, 0x2F, 0xFD] {
            let raw = path.with_extension("");
            bail!(
                "{} is compressed; unpack it first: zstd -d --sparse {} -o {}",
                path.display(),
                path.display(),
                raw.display()
            );
        }
        let mut data = Extents::new();
        let known = kind.is_file()
            && vm::for_each_extent(&file, |start, end| {
                data.add(start..end);
                Ok(())
            })
            .is_ok();
        Ok(Self {
            data: known.then_some(data),
            ..Self::read(Arc::new(file), path)?
        })
    }
}

impl<D: Device> Image<D> {
    /// The image on `device`; `path` is for messages.
    ///
    /// # Errors
    /// As for [`Image::open`].
    pub fn read(device: Arc<D>, path: &Path) -> Result<Self> {
        let size = device
            .size()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let table = gpt::read(&*device, None)
            .with_context(|| format!("{} is no disk image", path.display()))?;
        let parts = roles(&table);
        let has = |role| parts.iter().any(|part: &Part| part.role == role);
        if !(has(Role::RootA) && has(Role::Esp) || has(Role::Cas)) {
            let labels: Vec<_> = table.partitions().iter().map(|e| &*e.label).collect();
            bail!(
                "{} is no Larder image: neither ESP and root nor /cas among its partitions ({})",
                path.display(),
                labels.join(", ")
            );
        }
        Ok(Self {
            path: path.into(),
            device,
            size,
            table,
            parts,
            data: None,
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole device.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The byte ranges within `range` that may hold something else than zeros.
    pub fn data_within(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let Some(data) = &self.data else {
            return vec![range];
        };
        data.iter()
            .map(|data| data.start.max(range.start)..data.end.min(range.end))
            .filter(|both| both.start < both.end)
            .collect()
    }

    /// The partition table with its defects.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The partitions that are Larder's, in the order of [`Role`].
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The entry of the partition of that role.
    pub fn part(&self, role: Role) -> Option<&Entry> {
        let part = self.parts.iter().find(|part| part.role == role)?;
        Some(&part.entry)
    }

    /// What an entry of the table is for; `None` for a partition that is not Larder's.
    pub fn role_of(&self, entry: &Entry) -> Option<Role> {
        let part = self.parts.iter().find(|part| part.entry == *entry)?;
        Some(part.role)
    }

    /// The bytes of a partition.
    ///
    /// # Errors
    /// There is none of that role, or it lies outside of the device.
    pub fn region(&self, role: Role) -> Result<Region<'_, D>> {
        let entry = self
            .part(role)
            .with_context(|| format!("{} has no partition {}", self.path.display(), role.name()))?;
        ensure!(
            entry.end() <= self.size,
            "{}: partition {} ends at byte {}, the disk at byte {}",
            self.path.display(),
            role.name(),
            entry.end(),
            self.size
        );
        Ok(Region::new(&*self.device, entry.start, entry.size))
    }

    /// The places for roots that the disk has.
    pub fn slots(&self) -> Vec<Slot> {
        [
            (Role::RootA, Role::RootAVerity),
            (Role::RootB, Role::RootBVerity),
        ]
        .into_iter()
        .filter_map(|(role, tree)| {
            let (root, tree) = (self.part(role)?, self.part(tree)?);
            let mut hash = [0; 32];
            hash[..16].copy_from_slice(root.guid.as_bytes());
            hash[16..].copy_from_slice(tree.guid.as_bytes());
            let holds = match root.label.split_once('_') {
                _ if root.label == EMPTY_SLOT => None,
                Some((id, version)) => Some((id.to_string(), version.to_string())),
                None => Some((root.label.clone(), String::new())),
            };
            Some(Slot {
                role,
                holds,
                root_hash: RootHash(hash),
            })
        })
        .collect()
    }

    /// The slot that is not empty; of two the one with that root hash, else the first.
    pub fn used_slot(&self, root_hash: Option<RootHash>) -> Option<Slot> {
        let mut used = self.slots();
        used.retain(|slot| slot.holds.is_some());
        let wanted = used.iter().position(|s| Some(s.root_hash) == root_hash);
        match wanted {
            Some(at) => Some(used.swap_remove(at)),
            None => used.into_iter().next(),
        }
    }

    /// Everything on the ESP.
    ///
    /// # Errors
    /// There is none, or what is wrong with it.
    pub fn esp(&self) -> Result<Esp> {
        Esp::read(&self.region(Role::Esp)?).with_context(|| self.at(Role::Esp))
    }

    /// The root file system in a slot, read as a whole; origins are empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn root(&self, slot: &Slot) -> Result<Tree> {
        let region = self.region(slot.role)?;
        let reader = ext4::Reader::open(&region, ext4::Limits::default());
        let tree = reader.and_then(|reader| reader.tree());
        tree.with_context(|| self.at(slot.role))
    }

    /// A partition of this image for messages.
    pub fn at(&self, role: Role) -> String {
        match self.part(role) {
            Some(entry) => format!(
                "{}: partition {} (from byte {})",
                self.path.display(),
                role.name(),
                entry.start
            ),
            None => format!("{}: partition {}", self.path.display(), role.name()),
        }
    }
}

/// Names the partitions: by type, those of plain data also by label, two of a kind by their order.
fn roles(table: &Table) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for entry in table.partitions() {
        let role = Role::ALL.into_iter().find(|role| {
            let labelled = match role {
                Role::State | Role::Cas => entry.label == role.name(),
                _ => true,
            };
            let free = parts.iter().all(|part| part.role != *role);
            free && labelled && role.type_guid() == entry.type_guid
        });
        if let Some(role) = role {
            let entry = entry.clone();
            parts.push(Part { role, entry });
        }
    }
    parts.sort_by_key(|part| part.role);
    parts
}
