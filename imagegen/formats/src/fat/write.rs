//! The writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::names::{self, Short};
use super::{
    ATTR_ARCHIVE, ATTR_DIR, ATTR_VOLUME, END_OF_CHAIN, ENTRY, Error, FIRST_CLUSTER, Geometry,
    MAX_FOLDER, Options, Summary,
};
use crate::region::{Extents, WriteAt};
use crate::tree::{Kind, Tree};

/// Sector of the copy of the boot sector.
const BACKUP_BOOT: u64 = 6;

/// A file or folder with its place.
struct Item<'a> {
    /// `None` for a folder.
    data: Option<&'a [u8]>,
    /// Folders: their entries, filled once all places are known.
    children: Vec<Child<'a>>,
    parent: usize,
    first: u32,
    clusters: u32,
}

struct Child<'a> {
    item: usize,
    name: &'a str,
    short: Short,
    /// Whether the short name says all.
    plain: bool,
}

/// Writes the folders and files of `tree` (whose `/` may be missing; modes, owners and times do
/// not count) as a FAT32 volume to `out` from byte 0. What is not written must read as zero.
///
/// # Errors
/// Every variant of [`Error`]. All but [`Error::Write`] come before the first byte is written.
pub fn write<W: WriteAt + ?Sized>(
    tree: &Tree,
    options: &Options,
    out: &W,
) -> Result<Summary, Error> {
    let geometry = Geometry::new(options.size, options.sector).ok_or(Error::Size {
        size: options.size,
        sector: options.sector.bytes(),
    })?;
    let label = label(&options.label)?;
    let mut items = plan(tree)?;
    place(&mut items, &geometry)?;
    let used: u64 = items.iter().map(|item| u64::from(item.clusters)).sum();
    let mut writer = Writer {
        out,
        written: Extents::new(),
    };
    let time = names::timestamp(options.clock);
    for (index, item) in items.iter().enumerate() {
        match item.data {
            Some(data) => writer.put(geometry_offset(&geometry, item), data)?,
            None => {
                let bytes = folder(&items, index, &label, time);
                writer.put(geometry_offset(&geometry, item), &bytes)?;
            }
        }
    }
    let fat = table(&items);
    for copy in 0..2 {
        let sector = geometry.reserved + copy * geometry.fat;
        writer.put(sector * geometry.sector, &fat)?;
    }
    let boot = boot_sector(options, &geometry, &label);
    let info = info_sector(geometry.clusters() - used, FIRST_CLUSTER + used as u32);
    for start in [BACKUP_BOOT, 0] {
        writer.put((start + 1) * geometry.sector, &info)?;
        // A third sector that ends in the signature, as Windows has it.
        writer.put((start + 2) * geometry.sector + 510, &[0x55, 0xAA])?;
        writer.put(start * geometry.sector, &boot)?;
    }
    Ok(Summary {
        cluster: geometry.cluster(),
        clusters: geometry.clusters(),
        free_clusters: geometry.clusters() - used,
        data: writer.written,
    })
}

/// First byte of an item; an empty file has none, and nothing is written there.
fn geometry_offset(geometry: &Geometry, item: &Item<'_>) -> u64 {
    geometry.offset(item.first.max(FIRST_CLUSTER))
}

/// The label as on the disk.
fn label(text: &str) -> Result<Short, Error> {
    let good = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || b" _-".contains(&c);
    if text.is_empty() || text.len() > 11 || text.starts_with(' ') || !text.bytes().all(good) {
        return Err(Error::Label(text.to_string()));
    }
    let mut out = [b' '; 11];
    out[..text.len()].copy_from_slice(text.as_bytes());
    Ok(out)
}

/// Items by path, the root first, and who lies where.
fn plan(tree: &Tree) -> Result<Vec<Item<'_>>, Error> {
    let mut items: Vec<Item<'_>> = Vec::with_capacity(tree.len() + 1);
    let mut index_of: HashMap<&str, usize> = HashMap::new();
    let mut folded: HashMap<usize, BTreeMap<String, &str>> = HashMap::new();
    let mut taken: HashMap<usize, BTreeSet<Short>> = HashMap::new();
    let item = |data| Item {
        data,
        children: Vec::new(),
        parent: 0,
        first: 0,
        clusters: 0,
    };
    index_of.insert("/", 0);
    items.push(item(None));
    for (path, node) in tree.iter() {
        let data = match &node.kind {
            Kind::Dir => None,
            Kind::File(data) => Some(&data[..]),
            _ => return Err(Error::Kind(path.to_string())),
        };
        if path == "/" {
            if data.is_some() {
                return Err(Error::Kind(path.to_string()));
            }
            continue;
        }
        if let Some(data) = data
            && u32::try_from(data.len()).is_err()
        {
            return Err(Error::FileTooBig {
                path: path.to_string(),
                size: data.len() as u64,
            });
        }
        let (folder, name) = match path.rfind('/') {
            Some(0) | None => ("/", path.trim_start_matches('/')),
            Some(at) => (&path[..at], &path[at + 1..]),
        };
        let parent = index_of
            .get(folder)
            .copied()
            .filter(|parent| items[*parent].data.is_none())
            .ok_or_else(|| crate::tree::TreeError::NoParent(path.to_string()))?;
        let bad = |why| Error::Name {
            path: path.to_string(),
            why,
        };
        if let Some(why) = names::refuse(name) {
            return Err(bad(why));
        }
        let seen = folded.entry(parent).or_default();
        if let Some(other) = seen.insert(names::folded(name), path) {
            return Err(Error::Case {
                path: path.to_string(),
                other: other.to_string(),
            });
        }
        let (short, plain) = names::short(name, taken.entry(parent).or_default())
            .ok_or_else(|| bad("a million others are like it"))?;
        let index = items.len();
        index_of.insert(path, index);
        items[parent].children.push(Child {
            item: index,
            name,
            short,
            plain,
        });
        items.push(Item {
            parent,
            ..item(data)
        });
        if folder_bytes(&items[parent], parent == 0) > MAX_FOLDER {
            return Err(Error::FolderTooBig(folder.to_string()));
        }
    }
    Ok(items)
}

/// Bytes that the entries of a folder take: the root has a label, others `.` and `..`.
fn folder_bytes(item: &Item<'_>, root: bool) -> usize {
    let own = if root { 1 } else { 2 };
    let entries: usize = item
        .children
        .iter()
        .map(|child| match child.plain {
            true => 1,
            false => {
                1 + child
                    .name
                    .encode_utf16()
                    .count()
                    .div_ceil(names::LONG_UNITS)
            }
        })
        .sum();
    (own + entries) * ENTRY
}

/// Gives each item its clusters: the folders first, then the files, both in the order of paths.
fn place(items: &mut [Item<'_>], geometry: &Geometry) -> Result<(), Error> {
    let mut next = u64::from(FIRST_CLUSTER);
    for folders in [true, false] {
        for (index, item) in items.iter_mut().enumerate() {
            let bytes = match item.data {
                None if folders => folder_bytes(item, index == 0) as u64,
                Some(data) if !folders => data.len() as u64,
                _ => continue,
            };
            let clusters = bytes.div_ceil(geometry.cluster());
            if clusters > 0 {
                // Checked below: what does not fit into 32 bits does not fit into the volume.
                item.first = next as u32;
                item.clusters = clusters as u32;
            }
            next += clusters;
        }
    }
    let used = next - u64::from(FIRST_CLUSTER);
    if used > geometry.clusters() {
        return Err(Error::Full {
            needed: used * geometry.cluster(),
            have: geometry.clusters() * geometry.cluster(),
        });
    }
    Ok(())
}

/// The used start of an allocation table.
fn table(items: &[Item<'_>]) -> Vec<u8> {
    let used: usize = items.iter().map(|item| item.clusters as usize).sum();
    let mut table = Vec::with_capacity(used + 2);
    // The media byte, and "clean, without errors".
    table.extend([0x0FFF_FFF8u32, 0x0FFF_FFFF]);
    table.resize(used + 2, 0);
    for item in items.iter().filter(|item| item.clusters > 0) {
        let last = item.first + item.clusters - 1;
        for cluster in item.first..last {
            table[cluster as usize] = cluster + 1;
        }
        table[last as usize] = END_OF_CHAIN;
    }
    table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// The entries of a folder.
fn folder(items: &[Item<'_>], index: usize, label: &Short, time: (u16, u16)) -> Vec<u8> {
    let item = &items[index];
    let mut out = Vec::with_capacity(folder_bytes(item, index == 0));
    if index == 0 {
        out.extend(entry(label, ATTR_VOLUME, 0, 0, time));
    } else {
        // `..` of a folder in the root says 0, not the root's cluster.
        let parent = match item.parent {
            0 => 0,
            parent => items[parent].first,
        };
        out.extend(entry(b".          ", ATTR_DIR, item.first, 0, time));
        out.extend(entry(b"..         ", ATTR_DIR, parent, 0, time));
    }
    for child in &item.children {
        if !child.plain {
            out.extend(names::long_entries(child.name, &child.short));
        }
        let target = &items[child.item];
        let (attributes, size) = match target.data {
            None => (ATTR_DIR, 0),
            Some(data) => (ATTR_ARCHIVE, data.len() as u32),
        };
        out.extend(entry(&child.short, attributes, target.first, size, time));
    }
    out
}

fn entry(
    name: &Short,
    attributes: u8,
    cluster: u32,
    size: u32,
    (date, time): (u16, u16),
) -> [u8; ENTRY] {
    let mut out = [0; ENTRY];
    out[..11].copy_from_slice(name);
    out[11] = attributes;
    let words = [
        (14, time),
        (16, date),
        (18, date),
        (20, (cluster >> 16) as u16),
        (22, time),
        (24, date),
        (26, cluster as u16),
    ];
    for (at, word) in words {
        out[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    out[28..].copy_from_slice(&size.to_le_bytes());
    out
}

/// The boot sector's first 512 bytes: parameters, and code that no firmware of ours runs.
fn boot_sector(options: &Options, geometry: &Geometry, label: &Short) -> [u8; 512] {
    let mut out = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    // A jump over the parameters to an endless loop.
    put(0, &[0xEB, 0x58, 0x90]);
    put(90, &[0xEB, 0xFE]);
    put(3, b"LARDER  ");
    put(11, &(geometry.sector as u16).to_le_bytes());
    put(13, &[geometry.per_cluster as u8]);
    put(14, &(geometry.reserved as u16).to_le_bytes());
    put(16, &[2]);
    put(21, &[0xF8]);
    // Sectors of a track, heads: nobody asks any more, but some check that they are not 0.
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(32, &(geometry.sectors as u32).to_le_bytes());
    put(36, &(geometry.fat as u32).to_le_bytes());
    put(44, &FIRST_CLUSTER.to_le_bytes());
    put(48, &1u16.to_le_bytes());
    put(50, &(BACKUP_BOOT as u16).to_le_bytes());
    put(64, &[0x80, 0, 0x29]);
    put(67, &options.volume_id.to_le_bytes());
    put(71, label);
    put(82, b"FAT32   ");
    put(510, &[0x55, 0xAA]);
    out
}

/// The sector that says how much is free, and where.
fn info_sector(free: u64, next: u32) -> [u8; 512] {
    let mut out = [0; 512];
    out[..4].copy_from_slice(b"RRaA");
    out[484..488].copy_from_slice(b"rrAa");
    out[488..492].copy_from_slice(&(free as u32).to_le_bytes());
    // Where to look for a free one; all ones if there is none.
    let next = if free == 0 { u32::MAX } else { next };
    out[492..496].copy_from_slice(&next.to_le_bytes());
    out[510..].copy_from_slice(&[0x55, 0xAA]);
    out
}

struct Writer<'a, W: ?Sized> {
    out: &'a W,
    written: Extents,
}

impl<W: WriteAt + ?Sized> Writer<'_, W> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.written.add(at..at + bytes.len() as u64);
        self.out
            .write_all_at(bytes, at)
            .map_err(|source| Error::Write { at, source })
    }
}
