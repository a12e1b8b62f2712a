//! The reader.

use std::collections::HashSet;
use std::io;

use super::names::{self, LONG_PLACES};
use super::{
    ATTR_DIR, ATTR_LONG, ATTR_VOLUME, ENTRY, FIRST_CLUSTER, Geometry, MAX_CLUSTERS, MAX_FOLDER,
    MIN_CLUSTERS,
};
use crate::region::ReadAt;

/// How much a reader takes in before it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files and folders.
    pub entries: usize,
    /// Folders in folders.
    pub depth: usize,
    /// Bytes of a file.
    pub file: u64,
}

impl Default for Limits {
    /// What an EFI system partition can hold with a wide margin.
    fn default() -> Self {
        Self {
            entries: 100_000,
            depth: 32,
            file: 1 << 30,
        }
    }
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path by long names.
    pub path: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// Size in bytes, 0 for folders.
    pub size: u32,
    /// Its short name, `BOOTX64.EFI`.
    pub short: String,
    /// Its first cluster, 0 for an empty file.
    first: u32,
}

/// Why a volume cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The boot sector is not that of a FAT32.
    #[error("byte {offset}: not a FAT32 volume: {what}")]
    NotFat32 {
        /// Where.
        offset: u64,
        /// Why.
        what: String,
    },
    /// Both tables are to be equal.
    #[error("byte {offset}: the two allocation tables differ at cluster {cluster}")]
    TablesDiffer {
        /// In the second table.
        offset: u64,
        /// Which.
        cluster: u32,
    },
    /// A chain leads out of the volume, to a free cluster, in a circle, or is too short.
    #[error("{path}: the cluster chain is broken at cluster {cluster}, byte {offset} of the table")]
    Chain {
        /// Whose.
        path: String,
        /// Where.
        cluster: u32,
        /// Its place on the volume.
        offset: u64,
    },
    /// An entry of a folder is nonsense.
    #[error("{path}, byte {offset}: {what}")]
    Entry {
        /// The folder.
        path: String,
        /// Where on the volume.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More than [`Limits`] allow.
    #[error("{path}: {what}, more than is allowed")]
    Limit {
        /// Where.
        path: String,
        /// What.
        what: String,
    },
    /// No such file.
    #[error("there is no file {0} on the FAT volume")]
    NotFound(String),
    /// Reading failed.
    #[error("reading byte {offset} of the FAT volume failed")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// A FAT32 volume.
#[derive(Debug)]
pub struct Volume<'a, D: ?Sized> {
    device: &'a D,
    geometry: Geometry,
    /// First allocation table.
    table: Vec<u32>,
    root: u32,
    limits: Limits,
    label: String,
    volume_id: u32,
}

impl<'a, D: ReadAt + ?Sized> Volume<'a, D> {
    /// Reads boot sector and both allocation tables of `device`.
    ///
    /// # Errors
    /// [`ReadError::NotFat32`], [`ReadError::TablesDiffer`], [`ReadError::Read`].
    pub fn open(device: &'a D, limits: Limits) -> Result<Self, ReadError> {
        let mut boot = [0; 512];
        get(device, &mut boot, 0)?;
        let size = device
            .size()
            .map_err(|source| ReadError::Read { offset: 0, source })?;
        let geometry = geometry(&boot, size)?;
        let root = u32_at(&boot, 44);
        let bytes = ((geometry.clusters() + 2) * 4) as usize;
        let mut tables = [vec![0; bytes], vec![0; bytes]];
        for (copy, table) in (0..).zip(&mut tables) {
            let start = (geometry.reserved + copy * geometry.fat) * geometry.sector;
            get(device, table, start)?;
        }
        if let Some(at) = (0..bytes)
            .step_by(4)
            .find(|&at| tables[0][at..at + 4] != tables[1][at..at + 4])
        {
            return Err(ReadError::TablesDiffer {
                offset: (geometry.reserved + geometry.fat) * geometry.sector + at as u64,
                cluster: at as u32 / 4,
            });
        }
        let [table, _] = tables;
        Ok(Self {
            device,
            geometry,
            table: table
                .chunks_exact(4)
                .map(|entry| u32_at(entry, 0) & 0x0FFF_FFFF)
                .collect(),
            root,
            limits,
            label: String::from_utf8_lossy(&boot[71..82])
                .trim_end()
                .to_string(),
            volume_id: u32_at(&boot, 67),
        })
    }

    /// The label of the boot sector.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The volume id.
    pub fn volume_id(&self) -> u32 {
        self.volume_id
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.geometry.cluster()
    }

    /// Clusters that nothing uses.
    pub fn free_clusters(&self) -> u64 {
        self.table[FIRST_CLUSTER as usize..]
            .iter()
            .filter(|entry| **entry == 0)
            .count() as u64
    }

    /// All files and folders, a folder before what is in it, in the order of the disk.
    ///
    /// # Errors
    /// [`ReadError`], for the first thing that is wrong anywhere.
    pub fn list(&self) -> Result<Vec<Entry>, ReadError> {
        let mut out = Vec::new();
        // A folder that two entries lead to would be listed for ever.
        let mut seen = HashSet::from([self.root]);
        self.list_folder("", self.root, 0, &mut seen, &mut out)?;
        Ok(out)
    }

    /// The content of the file at `path` (as [`Entry::path`]; case does not count).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        let wanted = names::folded(path);
        let entry = self
            .list()?
            .into_iter()
            .find(|entry| !entry.folder && names::folded(&entry.path) == wanted)
            .ok_or_else(|| ReadError::NotFound(path.to_string()))?;
        self.content(&entry)
    }

    /// The content of a listed file.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn content(&self, entry: &Entry) -> Result<Vec<u8>, ReadError> {
        let size = u64::from(entry.size);
        if size > self.limits.file {
            return Err(self.limit(&entry.path, format!("{size} bytes")));
        }
        // The chain first: it is bounded by the volume, the size that the entry claims is not.
        let chain = self.chain(&entry.path, entry.first, size)?;
        let mut out = vec![0; size as usize];
        let cluster = self.geometry.cluster() as usize;
        // Clusters that follow each other are read at once.
        let (mut at, mut index) = (0, 0);
        while at < out.len() {
            let mut count = 1;
            while chain.get(index + count) == Some(&(chain[index] + count as u32)) {
                count += 1;
            }
            let end = (at + count * cluster).min(out.len());
            get(
                self.device,
                &mut out[at..end],
                self.geometry.offset(chain[index]),
            )?;
            (at, index) = (end, index + count);
        }
        Ok(out)
    }

    fn limit(&self, path: &str, what: String) -> ReadError {
        ReadError::Limit {
            path: path.to_string(),
            what,
        }
    }

    /// The clusters of `size` bytes from `first`; all of a folder (`u64::MAX`).
    fn chain(&self, path: &str, first: u32, size: u64) -> Result<Vec<u32>, ReadError> {
        let folder = size == u64::MAX;
        let wanted = match folder {
            true => (MAX_FOLDER as u64).div_ceil(self.geometry.cluster()),
            false => size.div_ceil(self.geometry.cluster()),
        };
        let mut chain = Vec::new();
        let mut cluster = first;
        loop {
            let ended = cluster >= 0x0FFF_FFF8 || (chain.is_empty() && cluster == 0);
            if ended && (folder && !chain.is_empty() || chain.len() as u64 == wanted) {
                return Ok(chain);
            }
            let inside = (FIRST_CLUSTER as usize..self.table.len()).contains(&(cluster as usize));
            // Longer than wanted is as wrong as shorter; a circle is longer than anything.
            if ended || !inside || chain.len() as u64 >= wanted {
                let at = self.geometry.reserved * self.geometry.sector;
                return Err(ReadError::Chain {
                    path: path.to_string(),
                    cluster,
                    offset: at + u64::from(cluster) * 4,
                });
            }
            chain.push(cluster);
            cluster = self.table[cluster as usize];
        }
    }

    fn list_folder(
        &self,
        path: &str,
        first: u32,
        depth: usize,
        seen: &mut HashSet<u32>,
        out: &mut Vec<Entry>,
    ) -> Result<(), ReadError> {
        if depth > self.limits.depth {
            return Err(self.limit(path, format!("{depth} folders deep")));
        }
        let mut long = Long::default();
        let mut bytes = vec![0; self.geometry.cluster() as usize];
        for cluster in self.chain(path, first, u64::MAX)? {
            let start = self.geometry.offset(cluster);
            get(self.device, &mut bytes, start)?;
            for (raw, offset) in bytes.chunks_exact(ENTRY).zip((start..).step_by(ENTRY)) {
                let bad = |what| ReadError::Entry {
                    path: format!("{path}/"),
                    offset,
                    what,
                };
                match (raw[0], raw[11]) {
                    (0, _) => return Ok(()),
                    (0xE5, _) => {
                        long = Long::default();
                        continue;
                    }
                    (_, ATTR_LONG) => {
                        long.add(raw).ok_or_else(|| bad("a broken long name"))?;
                        continue;
                    }
                    (_, attributes) if attributes & ATTR_VOLUME != 0 => {
                        long = Long::default();
                        continue;
                    }
                    (b'.', _) if raw[..11] == *b".          " || raw[..11] == *b"..         " => {
                        continue;
                    }
                    _ => {}
                }
                let short = short_text(raw);
                let name = std::mem::take(&mut long)
                    .finish(raw)
                    .unwrap_or_else(|| short.clone());
                if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                    return Err(bad("a name that is none"));
                }
                if out.len() >= self.limits.entries {
                    return Err(self.limit(path, format!("{} entries", out.len())));
                }
                let folder = raw[11] & ATTR_DIR != 0;
                let first = u32::from(u16_at(raw, 20)) << 16 | u32::from(u16_at(raw, 26));
                let path = format!("{path}/{name}");
                out.push(Entry {
                    path: path.clone(),
                    folder,
                    size: if folder { 0 } else { u32_at(raw, 28) },
                    short,
                    first,
                });
                if folder {
                    if !seen.insert(first) {
                        return Err(bad("a folder that is listed elsewhere too"));
                    }
                    self.list_folder(&path, first, depth + 1, seen, out)?;
                }
            }
        }
        Ok(())
    }
}

/// A long name while its parts are read.
#[derive(Default)]
struct Long {
    /// The parts, last first.
    parts: Vec<[u16; 13]>,
    /// Number of the part that must come next.
    next: u8,
    checksum: u8,
}

impl Long {
    /// `None` if the part is not the one that must come.
    fn add(&mut self, raw: &[u8]) -> Option<()> {
        let number = raw[0] & 0x3F;
        if raw[0] & 0x40 != 0 {
            *self = Self {
                parts: Vec::new(),
                next: number,
                checksum: raw[13],
            };
        }
        if number == 0 || number > 20 || number != self.next || raw[13] != self.checksum {
            return None;
        }
        self.parts.push(LONG_PLACES.map(|place| u16_at(raw, place)));
        self.next = number - 1;
        Some(())
    }

    /// The name, if it belongs to the short entry `raw`.
    fn finish(self, raw: &[u8]) -> Option<String> {
        let mut short = [0; 11];
        short.copy_from_slice(&raw[..11]);
        if self.parts.is_empty() || self.next != 0 || names::checksum(&short) != self.checksum {
            return None;
        }
        let units: Vec<u16> = self
            .parts
            .into_iter()
            .rev()
            .flatten()
            .take_while(|&unit| unit != 0)
            .collect();
        Some(String::from_utf16_lossy(&units))
    }
}

/// `BOOTX64.EFI`, with the bits that say lower case.
fn short_text(raw: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| -> String {
        let text = bytes.iter().map(|&byte| match byte {
            // 0x05 stands for 0xE5, which means "deleted".
            0x05 => '\u{FFFD}',
            b if b.is_ascii() => char::from(b),
            _ => '\u{FFFD}',
        });
        let text: String = text.collect();
        let text = text.trim_end_matches(' ');
        if lower {
            text.to_ascii_lowercase()
        } else {
            text.to_string()
        }
    };
    let base = part(&raw[..8], raw[12] & 0x08 != 0);
    let extension = part(&raw[8..11], raw[12] & 0x10 != 0);
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// The geometry that a boot sector describes, if it is one of a FAT32 that fits into `size`.
fn geometry(boot: &[u8; 512], size: u64) -> Result<Geometry, ReadError> {
    let bad = |offset: u64, what: String| Err(ReadError::NotFat32 { offset, what });
    if boot[510..] != [0x55, 0xAA] {
        return bad(510, "no boot signature".into());
    }
    let sector = u64::from(u16_at(boot, 11));
    if ![512, 1024, 2048, 4096].contains(&sector) {
        return bad(11, format!("sectors of {sector} bytes"));
    }
    let per_cluster = u64::from(boot[13]);
    if !per_cluster.is_power_of_two() {
        return bad(13, format!("clusters of {per_cluster} sectors"));
    }
    if boot[16] != 2 {
        return bad(16, format!("{} allocation tables", boot[16]));
    }
    if u16_at(boot, 17) != 0 || u16_at(boot, 22) != 0 {
        return bad(17, "FAT12 or FAT16".into());
    }
    let geometry = Geometry {
        sector,
        per_cluster,
        reserved: u16_at(boot, 14).into(),
        fat: u32_at(boot, 36).into(),
        sectors: u32_at(boot, 32).into(),
    };
    if geometry.sectors * sector > size {
        return bad(
            32,
            format!("{} sectors, but {size} bytes", geometry.sectors),
        );
    }
    if geometry.reserved == 0 || geometry.data() >= geometry.sectors {
        return bad(36, format!("tables of {} sectors", geometry.fat));
    }
    let clusters = geometry.clusters();
    if !(MIN_CLUSTERS..=MAX_CLUSTERS).contains(&clusters) {
        return bad(32, format!("{clusters} clusters"));
    }
    if geometry.fat * sector / 4 < clusters + 2 {
        return bad(36, format!("a table too short for {clusters} clusters"));
    }
    Ok(geometry)
}

fn get<D: ReadAt + ?Sized>(device: &D, out: &mut [u8], offset: u64) -> Result<(), ReadError> {
    device
        .read_exact_at(out, offset)
        .map_err(|source| ReadError::Read { offset, source })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// For fuzzing: any bytes as a volume (zeros follow them), of which everything is read.
pub fn fuzz(bytes: &[u8]) {
    let limits = Limits {
        entries: 1000,
        depth: 8,
        file: 1 << 20,
    };
    let device = crate::region::Padded::new(bytes, 64 << 20);
    let Ok(volume) = Volume::open(&device, limits) else {
        return;
    };
    let Ok(entries) = volume.list() else {
        return;
    };
    for entry in entries.iter().filter(|entry| !entry.folder) {
        let _ = volume.content(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fat::{Options, write};
    use crate::gpt::SectorSize;
    use crate::region::{Extents, Memory};
    use crate::tree::{Kind, Node, Tree};

    #[test]
    fn bent_volumes_end_in_words() {
        let mut tree = Tree::new();
        for folder in ["/", "/EFI", "/EFI/a folder with a long name"] {
            tree.insert(folder, Node::new(Kind::Dir, 0o755, ""))
                .unwrap();
        }
        for (path, len) in [
            ("/EFI/A.EFI", 3000),
            ("/EFI/a folder with a long name/b", 1),
        ] {
            let kind = Kind::File(vec![7; len].into());
            tree.insert(path, Node::new(kind, 0o644, "")).unwrap();
        }
        let options = Options {
            size: 34 << 20,
            sector: SectorSize::S512,
            label: "SEED".into(),
            volume_id: 1,
            clock: 0,
        };
        let out = Memory::new(34 << 20);
        let summary = write(&tree, &options, &out).unwrap();
        let volume = out.into_inner();
        assert_eq!(
            Volume::open(&volume, Limits::default())
                .unwrap()
                .list()
                .unwrap()
                .len(),
            4
        );
        // What was written, which is little, is bent; then it goes back to its places.
        let gather = |extents: &Extents| -> Vec<u8> {
            let ranges = extents.iter();
            ranges
                .flat_map(|range| volume[range.start as usize..range.end as usize].to_vec())
                .collect()
        };
        let end = summary.data.iter().last().unwrap().end as usize;
        let seed = gather(&summary.data);
        crate::fuzzing::mutate_for(std::time::Duration::from_secs(2), &[seed], |bytes| {
            let mut bent = volume[..end].to_vec();
            let mut rest = bytes;
            for range in summary.data.iter() {
                let len = ((range.end - range.start) as usize).min(rest.len());
                bent[range.start as usize..][..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            fuzz(&bent);
        });
    }
}
