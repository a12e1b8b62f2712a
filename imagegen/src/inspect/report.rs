//! Gathering what is shown.

use std::collections::BTreeMap;

use formats::ext4::PRISTINE_LABEL;
use formats::gpt::Role;
use formats::{ext4, verity};
use packages::Digest;
use serde::Serialize;

use crate::image::{Description, Device, Esp, Image, Uki, Units, units};
use crate::manifest::{Binary, File, Manifest, Type};
use crate::size;

/// What is in an image. The fields and their order are those of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where it was read.
    pub source: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many of them are not holes.
    pub data: u64,
    /// Bytes of a sector.
    pub sector: u64,
    /// GUID of the disk.
    pub disk_guid: String,
    /// What could not be read, in words.
    pub problems: Vec<String>,
    /// Id of the image that it boots.
    pub id: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Debian architecture (from the manifest).
    pub architecture: Option<String>,
    /// Date of the lock, seconds since 1970 (from the manifest).
    pub clock: Option<i64>,
    /// What compiled our binaries (from the manifest).
    pub compiler: Option<String>,
    /// Our binaries (from the manifest).
    pub binaries: Vec<Binary>,
    /// The host that is baked in, or that the disk was flashed for.
    pub host: Option<String>,
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// Files of the ESP.
    pub esp: Vec<FileSize>,
    /// The boot images, the one that starts first is first.
    pub boot: Vec<Uki>,
    /// Names and bytes in the root.
    pub root: Option<Size>,
    /// The packages, by name.
    pub packages: Vec<PackageSize>,
    /// Bytes of files that belong to no package, by origin, the largest first.
    pub origins: Vec<(String, Size)>,
    /// The files, the largest first, those of less than a block (4 KiB) left out.
    pub files: Vec<FileSize>,
    /// The folders, the largest first; one whose bytes are nearly all in one folder below gives way
    /// to that, and those of less than a block are left out.
    pub folders: Vec<(String, Size)>,
    /// What starts by itself.
    pub units: Units,
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// What it is for; `None` for one that is not Larder's.
    pub role: Option<&'static str>,
    /// PARTLABEL.
    pub label: String,
    /// PARTUUID.
    pub guid: String,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What is in it, in two or three words.
    pub holds: String,
}

/// A file.
#[derive(Clone, Debug, Serialize)]
pub struct FileSize {
    /// Path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: Option<Digest>,
    /// Where it came from, if that is known.
    pub origin: String,
}

/// A package.
#[derive(Clone, Debug, Serialize)]
pub struct PackageSize {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `amd64` or `all`.
    pub arch: String,
    /// Suite (from the manifest).
    pub suite: Option<String>,
    /// Its files in the root.
    pub files: Size,
}

/// How many, and how large together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
    /// Names.
    pub names: u64,
}

impl Size {
    fn add(&mut self, file: &File) {
        self.bytes += file.size;
        self.names += 1;
    }
}

/// Origin of what is laid over the root as it is.
const OVERLAY: &str = "configs/root";
/// A folder with this share of its bytes (in per cent) in one folder below gives way to that.
const GIVES_WAY: u64 = 80;

impl Report {
    /// Reads all of it; what cannot be read is in [`Report::problems`].
    pub fn of<D: Device>(image: &Image<D>, manifest: Option<&Manifest>) -> Self {
        let table = image.table();
        let mut problems: Vec<String> = table.defects.iter().map(ToString::to_string).collect();
        let data = image.data_within(0..image.size());
        let mut out = Self {
            source: image.path().display().to_string(),
            size: image.size(),
            data: data.iter().map(|range| range.end - range.start).sum(),
            sector: table.sector.bytes(),
            disk_guid: table.header.disk_guid.to_string(),
            problems: Vec::new(),
            id: None,
            version: None,
            architecture: None,
            clock: None,
            compiler: None,
            binaries: Vec::new(),
            host: None,
            partitions: Vec::new(),
            esp: Vec::new(),
            boot: Vec::new(),
            root: None,
            packages: Vec::new(),
            origins: Vec::new(),
            files: Vec::new(),
            folders: Vec::new(),
            units: Units::default(),
        };
        let mut esp = None;
        if image.part(Role::Esp).is_some() {
            match image.esp() {
                Ok(found) => esp = Some(found),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        out.partitions = partitions(image, esp.as_ref());
        if let Some(esp) = &esp {
            out.of_esp(esp, &mut problems);
            match Description::of_image(image, manifest) {
                Ok(description) => out.of_root(&description, manifest),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        out.problems = problems;
        out
    }

    fn of_esp(&mut self, esp: &Esp, problems: &mut Vec<String>) {
        self.esp = esp
            .files
            .iter()
            .map(|file| FileSize {
                path: file.path.clone(),
                size: file.content.len() as u64,
                sha256: Some(Digest::of(&file.content)),
                origin: String::new(),
            })
            .collect();
        for file in esp.uki_files() {
            match Uki::parse(&file.path, &file.content) {
                Ok(uki) => self.boot.push(uki),
                Err(error) => problems.push(format!("{}: {error:#}", file.path)),
            }
        }
        let host = esp.file("/larder/host");
        self.host = host.map(|text| String::from_utf8_lossy(text).trim().to_string());
    }

    fn of_root(&mut self, description: &Description, manifest: Option<&Manifest>) {
        self.id = Some(description.id.clone());
        self.version = Some(description.version.clone());
        self.architecture.clone_from(&description.architecture);
        self.clock = description.clock;
        self.compiler.clone_from(&description.compiler);
        if description.compiler.is_some() {
            self.binaries = manifest.map(|m| m.binaries.clone()).unwrap_or_default();
        }
        let mut root = Size::default();
        let mut by_origin: BTreeMap<&str, Size> = BTreeMap::new();
        for file in description.files.values() {
            root.add(file);
            by_origin.entry(&file.origin).or_default().add(file);
        }
        self.root = Some(root);
        self.packages = description
            .packages
            .iter()
            .map(|(name, package)| PackageSize {
                name: name.clone(),
                version: package.version.clone(),
                arch: package.arch.clone(),
                suite: package.source.as_ref().map(|(suite, _)| suite.clone()),
                files: by_origin
                    .remove(&*format!("package {name}"))
                    .unwrap_or_default(),
            })
            .collect();
        // `image.toml units.enable ssh.service` and the like: the first word says enough; so does
        // the folder of the overlay, whose files name themselves.
        let mut origins: BTreeMap<String, Size> = BTreeMap::new();
        for (origin, size) in by_origin {
            let origin = match origin.split_once(' ') {
                _ if origin.starts_with("package ") => origin,
                _ if origin.starts_with(OVERLAY) => OVERLAY,
                Some((first, _)) if first.contains(['.', '/']) || first == "effect" => first,
                _ => origin,
            };
            let sum = origins.entry(origin.to_string()).or_default();
            sum.bytes += size.bytes;
            sum.names += size.names;
        }
        if origins.len() > 1 {
            self.origins = largest_first(origins);
        }
        let mut files: Vec<_> = description
            .files
            .values()
            .filter(|file| file.size >= 4096)
            .map(|file| FileSize {
                path: file.path.clone(),
                size: file.size,
                sha256: file.sha256,
                origin: file.origin.clone(),
            })
            .collect();
        files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
        self.files = files;
        self.folders = folders(description);
        if let Some(tree) = &description.root {
            self.units = units(tree);
        }
    }
}

fn largest_first(sizes: BTreeMap<String, Size>) -> Vec<(String, Size)> {
    let mut out: Vec<_> = sizes.into_iter().collect();
    out.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    out
}

fn folders(description: &Description) -> Vec<(String, Size)> {
    let mut sizes: BTreeMap<String, Size> = BTreeMap::new();
    for file in description.files.values() {
        if file.kind == Type::Dir {
            continue;
        }
        for (at, _) in file.path.match_indices('/').skip(1) {
            let folder = &file.path[..at];
            match sizes.get_mut(folder) {
                Some(size) => size.add(file),
                None => sizes.entry(folder.to_string()).or_default().add(file),
            }
        }
    }
    // The largest folder in each folder.
    let mut child: BTreeMap<&str, u64> = BTreeMap::new();
    for (path, size) in &sizes {
        if let Some((parent, _)) = path.rsplit_once('/') {
            let most = child.entry(parent).or_default();
            *most = (*most).max(size.bytes);
        }
    }
    let stays = |path: &str, size: &Size| {
        let below = child.get(path).copied().unwrap_or(0);
        size.bytes >= 4096 && below * 100 < size.bytes * GIVES_WAY
    };
    let kept = sizes.iter().filter(|(path, size)| stays(path, size));
    largest_first(kept.map(|(path, size)| (path.clone(), *size)).collect())
}

fn partitions<D: Device>(image: &Image<D>, esp: Option<&Esp>) -> Vec<Partition> {
    let holds = |role| match role {
        Role::Bios => "reserved".to_string(),
        Role::Esp => match esp {
            Some(esp) => {
                let bytes = esp.files.iter().map(|file| file.content.len() as u64).sum();
                format!("FAT32, {}", size::show(bytes))
            }
            None => "unreadable".to_string(),
        },
        Role::RootA | Role::RootB | Role::State | Role::Cas => filesystem(image, role),
        Role::RootAVerity | Role::RootBVerity => {
            let mut magic = [0; 8];
            let region = image.region(role);
            let read = region.map(|region| {
                formats::region::ReadAt::read_exact_at(&region, &mut magic, 0).is_ok()
            });
            match (read, &magic) {
                (Ok(true), b"verity\0\0") => "hash tree".to_string(),
                (Ok(true), [0, 0, 0, 0, 0, 0, 0, 0]) => "empty".to_string(),
                _ => "no hash tree".to_string(),
            }
        }
    };
    image
        .table()
        .partitions()
        .iter()
        .map(|entry| {
            let role = image.role_of(entry);
            Partition {
                number: entry.number,
                role: role.map(Role::name),
                label: entry.label.clone(),
                guid: entry.guid.to_string(),
                start: entry.start,
                size: entry.size,
                holds: role.map_or_else(|| "not Larder's".to_string(), holds),
            }
        })
        .collect()
}

/// What the superblock of a partition says.
fn filesystem<D: Device>(image: &Image<D>, role: Role) -> String {
    let Ok(region) = image.region(role) else {
        return "outside of the disk".to_string();
    };
    match ext4::Reader::open(&region, ext4::Limits::default()) {
        Ok(reader) => {
            let info = reader.info();
            let bytes = info.blocks.saturating_mul(info.block_size);
            let word = match (info.sealed, &*info.label) {
                (true, _) => "sealed",
                (false, PRISTINE_LABEL) => "pristine",
                (false, _) => "ext4",
            };
            format!("{word}, {}", size::show(bytes))
        }
        // In use: mounted, or not unmounted.
        Err(ext4::ReadError::Feature { .. }) => "ext4 in use".to_string(),
        Err(_) => {
            let mut block = vec![0; verity::BLOCK_SIZE as usize];
            let read = formats::region::ReadAt::read_exact_at(&region, &mut block, 0);
            match read.is_ok() && formats::region::is_zero(&block) {
                true => "empty".to_string(),
                false => "no file system".to_string(),
            }
        }
    }
}
