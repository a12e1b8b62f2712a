//! Which disk is the boot disk: decisions without I/O, and their inputs.

use std::path::Path;

use disk::gpt::{Partition, TYPE_ESP, Table};
use disk::sysfs::{self, Disk};
use slots::{BootReport, efivar};
use uuid::Uuid;

use crate::cmdline::{Cmdline, RootHash};
use crate::console::{Fatal, Log};

/// How the boot disk is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// By the partition that the boot loader was started from.
    Esp(Uuid),
    /// Direct kernel boot: by the pair of partitions that the root hash names.
    RootPair(RootHash),
}

/// What the boot loader, or for want of one the command line, says.
pub(crate) fn wanted(cmdline: &Cmdline, log: &mut Log) -> Result<Wanted, Fatal> {
    let folder = Path::new(efivar::FOLDER);
    if folder.exists()
        && let Err(error) =
            disk::mount::mount("efivarfs", folder, "efivarfs", "nosuid,nodev,noexec")
    {
        log.warn(&format!("EFI variables: {error}"));
    }
    match efivar::read(folder, efivar::LOADER_DEVICE) {
        Ok(Some(text)) => {
            let guid = text.parse().map_err(|_| {
                Fatal::new(format!(
                    "LoaderDevicePartUUID is {text:?}, which names no partition"
                ))
            })?;
            log.say(&format!("booted from the ESP {guid}"));
            Ok(Wanted::Esp(guid))
        }
        Ok(None) => {
            log.say("no boot loader, the root hash names the disk");
            Ok(Wanted::RootPair(cmdline.root_hash))
        }
        Err(error) => Err(Fatal::new(format!("the boot loader's word: {error}"))),
    }
}

/// Which of the disks match; the tables are in the order of the disks.
pub(crate) fn candidates<'a>(
    wanted: Wanted,
    tables: impl Iterator<Item = (usize, &'a Table)>,
) -> Vec<usize> {
    tables
        .filter(|(_, table)| match wanted {
            Wanted::Esp(guid) => table.by_guid(guid).is_some(),
            Wanted::RootPair(hash) => {
                table.by_guid(hash.root_guid()).is_some()
                    && table.by_guid(hash.verity_guid()).is_some()
            }
        })
        .map(|(index, _)| index)
        .collect()
}

/// The partitions that count on the boot disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) root: Partition,
    pub(crate) verity: Partition,
    pub(crate) esp: Option<Partition>,
    pub(crate) state: Option<Partition>,
    pub(crate) cas: Option<Partition>,
}

/// Finds them in the table of the boot disk.
pub(crate) fn parts(table: &Table, wanted: Wanted, hash: &RootHash) -> Result<Parts, String> {
    let find = |guid: Uuid, what: &str| {
        table.by_guid(guid).cloned().ok_or_else(|| {
            format!(
                "has no {what} partition {guid} for this image, but {}",
                table.names()
            )
        })
    };
    let esp = match wanted {
        Wanted::Esp(guid) => table.by_guid(guid),
        Wanted::RootPair(_) => table.by_type(TYPE_ESP),
    };
    Ok(Parts {
        root: find(hash.root_guid(), "root")?,
        verity: find(hash.verity_guid(), "verity")?,
        esp: esp.cloned(),
        state: table.by_name(disk::STATE_PARTITION).cloned(),
        cas: table.by_name(disk::CAS_PARTITION).cloned(),
    })
}

/// The boot disk with device nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootDisk {
    pub(crate) node: String,
    pub(crate) slot: &'static str,
    pub(crate) root: String,
    pub(crate) verity: String,
    pub(crate) esp: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) cas: Option<String>,
}

impl BootDisk {
    /// Finds the nodes of the partitions, and names those that the kernel does not have (yet). The
    /// error is about root or verity, without which there is no boot.
    pub(crate) fn new(
        root: &Path,
        disk: &Disk,
        parts: &Parts,
    ) -> Result<(Self, Vec<String>), String> {
        let words = |partition: &Partition| {
            format!("partition {} ({:?})", partition.number, partition.name)
        };
        let node = |partition: &Partition| {
            sysfs::partition_name(root, disk, partition.number, partition.first)
                .map(|name| format!("/dev/{name}"))
        };
        let needed = |partition| node(partition).ok_or_else(|| words(partition));
        let mut missing = Vec::new();
        let mut optional = |partition: &Option<Partition>| {
            let partition = partition.as_ref()?;
            let found = node(partition);
            if found.is_none() {
                missing.push(words(partition));
            }
            found
        };
        let found = Self {
            node: disk.node().display().to_string(),
            // Partitions 3 and 4 are slot a, 5 and 6 slot b.
            slot: if parts.root.number < 5 { "a" } else { "b" },
            root: needed(&parts.root)?,
            verity: needed(&parts.verity)?,
            esp: optional(&parts.esp),
            state: optional(&parts.state),
            cas: optional(&parts.cas),
        };
        Ok((found, missing))
    }

    /// Fills in what the report says about disks.
    pub(crate) fn describe(&self, report: &mut BootReport) {
        report.slot = self.slot.into();
        report.esp.clone_from(&self.esp);
        report.state.clone_from(&self.state);
        report.cas.clone_from(&self.cas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::EXAMPLE;

    fn hash() -> RootHash {
        RootHash::parse(EXAMPLE).unwrap()
    }

    const ESP: Uuid = Uuid::from_u128(0xe);

    fn table(partitions: &[(u32, &str, Uuid, Uuid)]) -> Table {
        let list = partitions
            .iter()
            .enumerate()
            .map(|(index, (number, name, guid, kind))| {
                let first = 2048 * (index as u64 + 1);
                Partition {
                    number: *number,
                    type_guid: *kind,
                    guid: *guid,
                    first,
                    last: first + 2047,
                    attributes: 0,
                    name: (*name).into(),
                }
            });
        Table::new(Uuid::nil(), 512, 1 << 16, list.collect()).unwrap()
    }

    fn machine() -> Table {
        let linux = disk::gpt::TYPE_LINUX;
        table(&[
            (2, "ESP", ESP, TYPE_ESP),
            (3, "larder_1", hash().root_guid(), linux),
            (4, "larder_1_verity", hash().verity_guid(), linux),
            (7, "state", Uuid::from_u128(7), linux),
            (8, "cas", Uuid::from_u128(8), linux),
        ])
    }

    fn choose(wanted: Wanted, tables: &[&Table]) -> Vec<usize> {
        candidates(wanted, tables.iter().copied().enumerate())
    }

    #[test]
    fn the_disk_of_the_esp_counts_whatever_else_is_there() {
        let other_esp = table(&[
            (3, "larder_1", hash().root_guid(), disk::gpt::TYPE_LINUX),
            (
                4,
                "larder_1_verity",
                hash().verity_guid(),
                disk::gpt::TYPE_LINUX,
            ),
        ]);
        let wanted = Wanted::Esp(ESP);
        assert_eq!(choose(wanted, &[&other_esp, &machine()]), [1]);
        assert_eq!(choose(wanted, &[&machine(), &machine()]), [0, 1]);
        assert_eq!(choose(wanted, &[&other_esp]), [0; 0]);
        assert_eq!(
            choose(Wanted::RootPair(hash()), &[&other_esp, &machine()]),
            [0, 1]
        );
    }

    #[test]
    fn half_a_pair_is_no_candidate() {
        let half = table(&[(3, "larder_1", hash().root_guid(), disk::gpt::TYPE_LINUX)]);
        assert_eq!(choose(Wanted::RootPair(hash()), &[&half]), [0; 0]);
        let error = parts(&half, Wanted::RootPair(hash()), &hash()).unwrap_err();
        assert!(
            error.starts_with("has no verity partition 01234567-89ab")
                && error.ends_with(r#"but 3 "larder_1""#),
            "{error}"
        );
    }

    #[test]
    fn parts_are_found_by_guid_and_name() {
        let found = parts(&machine(), Wanted::RootPair(hash()), &hash()).unwrap();
        assert_eq!(found.root.number, 3);
        assert_eq!(found.esp.unwrap().guid, ESP);
        assert_eq!(
            (found.state.unwrap().number, found.cas.unwrap().number),
            (7, 8)
        );
    }

    #[test]
    fn nodes_come_from_sysfs() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk {
            name: "vda".into(),
            size: 1 << 25,
            sector_size: 512,
        };
        let parts = parts(&machine(), Wanted::Esp(ESP), &hash()).unwrap();
        let put = |number: u32, first: u64| {
            let path = folder.path().join(format!("vda/vda{number}"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("partition"), format!("{number}\n")).unwrap();
            std::fs::write(path.join("start"), format!("{first}\n")).unwrap();
        };
        for (index, number) in [2, 3, 4, 7].into_iter().enumerate() {
            put(number, 2048 * (index as u64 + 1));
        }
        let (found, missing) = BootDisk::new(folder.path(), &disk, &parts).unwrap();
        assert_eq!(
            (found.cas, missing),
            (None, vec![r#"partition 8 ("cas")"#.to_owned()])
        );
        put(8, 2048 * 5);
        let (found, missing) = BootDisk::new(folder.path(), &disk, &parts).unwrap();
        assert_eq!(missing, [""; 0]);
        assert_eq!((found.root.as_str(), found.slot), ("/dev/vda3", "a"));
        assert_eq!(found.cas.as_deref(), Some("/dev/vda8"));
        std::fs::remove_file(folder.path().join("vda/vda4/start")).unwrap();
        let error = BootDisk::new(folder.path(), &disk, &parts).unwrap_err();
        assert_eq!(error, r#"partition 4 ("larder_1_verity")"#);
    }
}
