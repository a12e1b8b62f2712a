//! FAT32: a writer of EFI system partitions from a [`Tree`], and a reader.
//!
//! The writer lays folders and files out one after the other, each contiguous, behind two equal
//! allocation tables; names carry a long entry (VFAT) unless they are plain 8.3 names. It leaves
//! out what is zero, so the file stays sparse. Sources of the format: Microsoft's "FAT: General
//! Overview of On-Disk Format" 1.03, `dosfstools`, Linux `fs/fat`.

mod names;
mod read;
mod write;

use std::io;

pub use read::{Entry, Limits, ReadError, Volume, fuzz};
pub use write::write;

use crate::gpt::SectorSize;

/// Least number of clusters of a FAT32; with fewer, everybody takes it for FAT16.
pub const MIN_CLUSTERS: u64 = 65_525;
/// Most clusters: 28 bits without the reserved values.
const MAX_CLUSTERS: u64 = 0x0FFF_FFF5;
/// Bytes of a directory entry.
const ENTRY: usize = 32;
/// Bytes of the largest folder (Microsoft's limit of 65536 entries).
const MAX_FOLDER: usize = 65_536 * ENTRY;
/// First cluster's number.
const FIRST_CLUSTER: u32 = 2;
/// Last cluster of a chain.
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;

const ATTR_VOLUME: u8 = 0x08;
const ATTR_DIR: u8 = 0x10;
const ATTR_ARCHIVE: u8 = 0x20;
/// Read-only, hidden, system and volume together: a part of a long name.
const ATTR_LONG: u8 = 0x0F;

/// All that a volume has besides its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size in bytes, a multiple of the sectors: that of the partition.
    pub size: u64,
    /// Sectors of the disk that it is to be on.
    pub sector: SectorSize,
    /// Volume label: at most 11 characters, upper-case letters, digits, space, `_`, `-`.
    pub label: String,
    /// Volume id, from the builder's seed.
    pub volume_id: u32,
    /// Seconds since 1970: all times of all files. Taken to lie in 1980 to 2107.
    pub clock: i64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of a cluster.
    pub cluster: u64,
    /// All clusters.
    pub clusters: u64,
    /// Those that nothing uses.
    pub free_clusters: u64,
    /// The byte ranges that were written; all others must read as zero.
    pub data: crate::region::Extents,
}

/// Why a volume cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something lies in no folder, or a path is not one.
    #[error("the tree cannot be written as FAT")]
    Tree(#[from] crate::tree::TreeError),
    /// FAT has files and folders, nothing else.
    #[error("{0} is neither a file nor a folder; FAT holds nothing else")]
    Kind(String),
    /// A name that FAT cannot hold.
    #[error("{path}: the name is not one for FAT: {why}")]
    Name {
        /// The file.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// Two names in a folder that differ only in case.
    #[error("{path} and {other} are the same name on FAT, which ignores case")]
    Case {
        /// The second one.
        path: String,
        /// The first one.
        other: String,
    },
    /// A file of 4 GiB or more.
    #[error("{path} has {size} bytes; a file on FAT has less than 4 GiB")]
    FileTooBig {
        /// The file.
        path: String,
        /// Its size.
        size: u64,
    },
    /// A folder with more than 65536 entries.
    #[error("{0} has more names than a folder on FAT can hold")]
    FolderTooBig(String),
    /// The label is none.
    #[error("{0:?} is no volume label: 1 to 11 upper-case letters, digits, space, _ and -")]
    Label(String),
    /// No FAT32 has this size.
    #[error(
        "a FAT32 of {size} bytes with sectors of {sector} bytes is not possible: it has 65525 to \
         268435445 clusters of 1 to 128 sectors"
    )]
    Size {
        /// Size asked for.
        size: u64,
        /// Bytes of a sector.
        sector: u64,
    },
    /// The files do not fit.
    #[error("the files need {needed} bytes, the volume has {have}")]
    Full {
        /// Bytes needed, in whole clusters.
        needed: u64,
        /// Bytes of all clusters.
        have: u64,
    },
    /// The target refused.
    #[error("writing at byte {at} of the FAT volume failed")]
    Write {
        /// Offset in the volume.
        at: u64,
        /// Why.
        source: io::Error,
    },
}

/// Where things lie, in bytes of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    sector: u64,
    /// Sectors of a cluster.
    per_cluster: u64,
    /// Sectors before the first table.
    reserved: u64,
    /// Sectors of one table.
    fat: u64,
    /// All sectors.
    sectors: u64,
}

impl Geometry {
    /// The geometry with the largest clusters (at most 4 KiB or a sector) that is a FAT32.
    fn new(size: u64, sector: SectorSize) -> Option<Self> {
        let sector = sector.bytes();
        let sectors = u32::try_from(size / sector).ok()?;
        if !size.is_multiple_of(sector) {
            return None;
        }
        // Files of an ESP are few and large: clusters of a page, or the next smaller.
        let mut per_cluster = (4096 / sector).max(1);
        // More clusters than FAT32 can number: larger ones.
        while u64::from(sectors) / per_cluster > MAX_CLUSTERS && per_cluster < 128 {
            per_cluster *= 2;
        }
        while per_cluster >= 1 {
            let geometry = Self::with_clusters(sectors.into(), sector, per_cluster);
            if let Some(geometry) = geometry
                && (MIN_CLUSTERS..=MAX_CLUSTERS).contains(&geometry.clusters())
            {
                return Some(geometry);
            }
            per_cluster /= 2;
        }
        None
    }

    fn with_clusters(sectors: u64, sector: u64, per_cluster: u64) -> Option<Self> {
        // 32 is usual; then the data are moved to a multiple of 4096, so that files lie in pages.
        let least = 32;
        // As if nothing but clusters followed: a few entries more than needed at most.
        let clusters = sectors.saturating_sub(least) / per_cluster;
        let fat = ((clusters + u64::from(FIRST_CLUSTER)) * 4).div_ceil(sector);
        let page = (4096 / sector).max(1);
        let data = (least + 2 * fat).next_multiple_of(page);
        let geometry = Self {
            sector,
            per_cluster,
            reserved: data - 2 * fat,
            fat,
            sectors,
        };
        (data < sectors).then_some(geometry)
    }

    /// Bytes of a cluster.
    fn cluster(&self) -> u64 {
        self.sector * self.per_cluster
    }

    /// First sector of the first cluster.
    fn data(&self) -> u64 {
        self.reserved + 2 * self.fat
    }

    /// How many clusters.
    fn clusters(&self) -> u64 {
        (self.sectors - self.data()) / self.per_cluster
    }

    /// First byte of a cluster.
    fn offset(&self, cluster: u32) -> u64 {
        self.data() * self.sector + u64::from(cluster - FIRST_CLUSTER) * self.cluster()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_fat32_or_nothing() {
        let esp = Geometry::new(128 << 20, SectorSize::S512).unwrap();
        assert_eq!(esp.cluster(), 1024);
        let big = Geometry::new(512 << 20, SectorSize::S4096).unwrap();
        assert_eq!(big.cluster(), 4096);
        assert_eq!(
            Geometry::new(512 << 20, SectorSize::S512)
                .unwrap()
                .cluster(),
            4096
        );
        for geometry in [esp, big] {
            assert!(geometry.clusters() >= MIN_CLUSTERS);
            assert!(geometry.fat * geometry.sector / 4 >= geometry.clusters() + 2);
            assert_eq!(geometry.data() * geometry.sector % 4096, 0);
        }
        assert_eq!(Geometry::new(128 << 20, SectorSize::S4096), None);
        assert_eq!(Geometry::new(16 << 20, SectorSize::S512), None);
        assert_eq!(Geometry::new((128 << 20) + 1, SectorSize::S512), None);
        assert!(Geometry::new(34 << 20, SectorSize::S512).is_some());
    }
}
