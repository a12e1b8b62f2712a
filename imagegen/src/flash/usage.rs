//! Who uses a disk: mounts, swap, devices made of it, loop devices.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where the kernel tells of itself; other folders in tests.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// `/sys`.
    pub(super) sys: PathBuf,
    /// `/proc`.
    pub(super) proc: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            proc: "/proc".into(),
        }
    }
}

/// One use of a disk or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Use {
    /// Kernel name of what is used: the disk, a partition, or something made of it.
    pub(super) device: String,
    /// Number of the partition that it is, or is made of.
    pub(super) partition: Option<u32>,
    /// How, in words: `mounted on /`.
    pub(super) how: String,
    /// It is what this machine runs from.
    pub(super) root: bool,
}

impl Kernel {
    /// Folder of a block device in sysfs.
    pub(super) fn block(&self, name: &str) -> PathBuf {
        self.sys.join("class/block").join(name)
    }

    /// Kernel names of the partitions of a disk with their numbers, in order.
    pub(super) fn partitions(&self, disk: &str) -> Vec<(u32, String)> {
        let mut found: Vec<(u32, String)> = names(&self.block(disk))
            .into_iter()
            .filter_map(|name| {
                let number = text(&self.block(disk).join(&name).join("partition"))?;
                Some((number.parse().ok()?, name))
            })
            .collect();
        found.sort();
        found
    }

    /// All uses of the disk with that kernel name.
    pub(super) fn uses(&self, disk: &str) -> Vec<Use> {
        let mut uses = Vec::new();
        self.follow(disk, None, 0, &mut uses);
        for (number, name) in self.partitions(disk) {
            self.follow(&name, Some(number), 0, &mut uses);
        }
        uses
    }

    /// Loop devices that are backed by the file at `path`, as uses of it.
    pub(super) fn loops(&self, path: &Path) -> Vec<Use> {
        names(&self.sys.join("class/block"))
            .into_iter()
            .filter(|name| {
                let backing = text(&self.block(name).join("loop/backing_file"));
                backing.is_some_and(|backing| Path::new(&backing) == path)
            })
            .map(|name| Use {
                how: format!("the file behind {name}"),
                device: name,
                partition: None,
                root: false,
            })
            .collect()
    }

    fn follow(&self, name: &str, partition: Option<u32>, depth: u32, uses: &mut Vec<Use>) {
        let mut add = |how: String, root| {
            uses.push(Use {
                device: name.to_owned(),
                partition,
                how,
                root,
            });
        };
        for target in self.mounts(name) {
            add(format!("mounted on {target}"), target == "/");
        }
        if self.is_swap(name) {
            add("in use as swap".into(), false);
        }
        let holders = names(&self.block(name).join("holders"));
        for holder in &holders {
            let words = text(&self.block(holder).join("dm/name"));
            add(
                match words {
                    Some(words) => format!("held by {holder} ({words})"),
                    None => format!("held by {holder}"),
                },
                false,
            );
        }
        // Devices cannot be made of themselves; the limit is for what sysfs may come to say.
        if depth < 8 {
            for holder in holders {
                self.follow(&holder, partition, depth + 1, uses);
            }
        }
    }

    /// Where a device is mounted, as far as this process sees.
    fn mounts(&self, name: &str) -> Vec<String> {
        let Some(mountinfo) = text(&self.proc.join("self/mountinfo")) else {
            return Vec::new();
        };
        let number = text(&self.block(name).join("dev"));
        mountinfo
            .lines()
            .filter_map(|line| {
                let (before, after) = line.split_once(" - ")?;
                let mut fields = before.split(' ');
                let device = fields.nth(2)?;
                let target = fields.nth(1)?;
                // File systems over several devices (btrfs) have a number of their own.
                let source = after.split(' ').nth(1)?;
                let same = number.as_deref() == Some(device) || self.is_node(source, name);
                same.then(|| unescape(target))
            })
            .collect()
    }

    fn is_swap(&self, name: &str) -> bool {
        let swaps = text(&self.proc.join("swaps")).unwrap_or_default();
        swaps
            .lines()
            .skip(1)
            .filter_map(|line| line.split_ascii_whitespace().next())
            .any(|node| self.is_node(node, name))
    }

    /// Whether `node` (`/dev/…`) is the device of that kernel name.
    fn is_node(&self, node: &str, name: &str) -> bool {
        if !node.starts_with("/dev/") {
            return false;
        }
        let plain = Path::new(node).file_name().is_some_and(|its| its == name);
        plain || disk::sysfs::name_of(Path::new(node)).is_ok_and(|its| its == name)
    }
}

/// Names in a folder, sorted; none if it is not there.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The text of a file without the white space around it; `None` if there is none.
pub(super) fn text(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// mountinfo writes white space as octal numbers.
fn unescape(target: &str) -> String {
    target
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}
