//! What a disk is, what is on it, and who uses it.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use disk::blank::Verdict;
use disk::{Device, ReadAt, blank, gpt, probe, sysfs};
use formats::gpt::SectorSize;
use serde::Serialize;

use super::usage::{Kernel, Use, text};

/// Where an image is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A block device, by its kernel name.
    Block(String),
    /// An existing plain file.
    File,
    /// A plain file that is to be made, of this size in bytes.
    New(u64),
}

impl Place {
    /// What is at `path`; `size` is asked for if nothing is.
    ///
    /// # Errors
    /// Nothing that an image could be written to.
    pub(super) fn find(path: &Path, size: Option<u64>, kernel: &Kernel) -> Result<Self> {
        let what = path.display();
        let found = match std::fs::metadata(path) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if path.starts_with("/dev") {
                    bail!("there is no disk {what}; lsblk lists the disks of this machine");
                }
                return match size {
                    Some(size) => Ok(Self::New(size)),
                    None => bail!("there is no {what}; --size SIZE makes a file of that size"),
                };
            }
            Err(error) => return Err(error).with_context(|| format!("cannot look at {what}")),
        };
        if size.is_some() {
            bail!("{what} exists; --size is only for a file that is to be made");
        }
        if found.is_file() {
            return Ok(Self::File);
        }
        if !found.is_block_device() {
            let kind = match () {
                () if found.is_dir() => "a folder",
                () if found.is_char_device() => "a character device",
                () => "neither a disk nor a file",
            };
            bail!("{what} is {kind}; --disk takes a whole disk, or a file that stands for one");
        }
        let name = sysfs::name_of(path)?;
        if let Some((disk, number)) = sysfs::disk_of(&kernel.sys.join("class/block"), &name) {
            bail!("{what} is partition {number} of /dev/{disk}; --disk takes a whole disk");
        }
        Ok(Self::Block(name))
    }
}

/// What a disk holds, as far as a decision needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Holds {
    /// Nothing at either end, where everything known has its signatures.
    Nothing,
    /// A Larder `/cas`.
    Cas,
    /// Something else; completes "the disk …".
    Other(String),
}

/// One partition that is on the disk now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Found {
    pub(super) number: u32,
    /// First byte.
    pub(super) start: u64,
    /// In bytes.
    pub(super) size: u64,
    pub(super) label: String,
    /// What it holds, in words.
    pub(super) holds: String,
    /// Where it is mounted or who else has it.
    pub(super) uses: Vec<String>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Facts {
    /// As the user gave it.
    pub(super) path: PathBuf,
    /// Kernel name, or name of the file.
    pub(super) name: String,
    /// Vendor and model.
    pub(super) model: Option<String>,
    pub(super) serial: Option<String>,
    /// In bytes.
    pub(super) size: u64,
    /// Of a logical sector, in bytes.
    pub(super) sector_size: u32,
    pub(super) read_only: bool,
    /// A plain file that is not there yet.
    pub(super) new: bool,
    /// What the whole of it holds.
    pub(super) holds: Holds,
    pub(super) partitions: Vec<Found>,
    pub(super) uses: Vec<Use>,
}

impl Facts {
    /// The word by which the user confirms which disk is meant.
    pub(super) fn word(&self) -> &str {
        self.serial.as_deref().unwrap_or(&self.name)
    }

    /// Looks at the disk; `sector` is that of a plain file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn gather(
        path: &Path,
        place: &Place,
        sector: Option<SectorSize>,
        kernel: &Kernel,
    ) -> Result<Self> {
        let of_file = sector.unwrap_or_default().bytes() as u32;
        let mut facts = Self {
            path: path.to_owned(),
            name: path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
            model: None,
            serial: None,
            size: 0,
            sector_size: of_file,
            read_only: false,
            new: false,
            holds: Holds::Nothing,
            partitions: Vec::new(),
            uses: Vec::new(),
        };
        if let Place::New(size) = place {
            return Ok(Self {
                size: *size,
                new: true,
                ..facts
            });
        }
        if let Place::Block(name) = place {
            facts.ask(name, kernel);
        }
        let mut device = match open(path, Device::open(path)) {
            Ok(device) => device,
            // Who uses it is reason enough, and a better one than that it cannot be read.
            Err(error) if !facts.uses.is_empty() => {
                facts.holds = Holds::Other(format!("cannot be looked at ({error:#})"));
                return Ok(facts);
            }
            Err(error) => return Err(error),
        };
        match place {
            Place::Block(_) => {
                facts.sector_size = device.sector_size();
                if let Some(asked) = sector
                    && asked.bytes() != u64::from(facts.sector_size)
                {
                    bail!(
                        "{} has sectors of {} bytes; --sector-size is only for files",
                        path.display(),
                        facts.sector_size
                    );
                }
            }
            Place::File | Place::New(_) => {
                device = device.with_sector_size(of_file);
                let whole = std::fs::canonicalize(path)
                    .with_context(|| format!("cannot find {}", path.display()))?;
                facts.uses = kernel.loops(&whole);
            }
        }
        facts.size = ReadAt::size(&device);
        facts.look(&mut device, place, kernel)?;
        Ok(facts)
    }

    /// What sysfs says of the block device of that kernel name; it need not be opened for that.
    fn ask(&mut self, name: &str, kernel: &Kernel) {
        let folder = kernel.block(name);
        let number = |file: &str| text(&folder.join(file))?.parse::<u64>().ok();
        name.clone_into(&mut self.name);
        // sysfs counts in 512 bytes whatever the sectors are.
        self.size = number("size").unwrap_or_default().saturating_mul(512);
        let sector = number("queue/logical_block_size").and_then(|size| u32::try_from(size).ok());
        self.sector_size = sector.unwrap_or(self.sector_size);
        self.model = model(&folder);
        self.serial = serial(&folder);
        self.read_only = number("ro").is_some_and(|ro| ro != 0);
        self.uses = kernel.uses(name);
    }

    /// What is on it.
    fn look(&mut self, device: &mut Device, place: &Place, kernel: &Kernel) -> Result<()> {
        if self.size == 0 {
            return Ok(());
        }
        let unreadable = || {
            format!(
                "{} cannot be read, so nothing is known about what is on it",
                self.path.display()
            )
        };
        self.holds = match blank::judge(device).with_context(unreadable)? {
            Verdict::Adopt(_) => Holds::Cas,
            Verdict::Partition { begun: Some(_) } => Holds::Cas,
            Verdict::Partition { begun: None } => Holds::Nothing,
            // "has only 512 bytes" says nothing of what is there.
            Verdict::Refuse(_) if self.size < 16 << 20 => match probe::identify(device)? {
                probe::Content::Blank => Holds::Nothing,
                other => Holds::Other(format!("holds {other}")),
            },
            Verdict::Refuse(reason) => Holds::Other(reason),
        };
        let mut found: Vec<(u32, u64, u64, String)> = Vec::new();
        let mut unused = false;
        if let Ok(table) = gpt::Table::read(device) {
            let sector = u64::from(table.sector_size);
            found.extend(table.partitions.iter().map(|p| {
                let start = p.first.saturating_mul(sector);
                (
                    p.number,
                    start,
                    p.sectors().saturating_mul(sector),
                    p.name.clone(),
                )
            }));
        } else if let Place::Block(name) = place {
            // Another kind of table, which the kernel can read.
            found.extend(kernel.partitions(name).into_iter().filter_map(|(n, part)| {
                let number = |file| text(&kernel.block(&part).join(file))?.parse::<u64>().ok();
                // sysfs counts in 512 bytes whatever the sectors are.
                Some((
                    n,
                    number("start")? * 512,
                    number("size")? * 512,
                    String::new(),
                ))
            }));
        }
        for (number, start, size, label) in found {
            let holds = probe::identify(&mut Part {
                device: &mut *device,
                start,
                size: size.min(self.size.saturating_sub(start)),
            });
            unused |= label == disk::CAS_PARTITION
                && matches!(&holds, Ok(probe::Content::Ext4(ext4)) if ext4.is_pristine());
            self.partitions.push(Found {
                number,
                start,
                size,
                label,
                holds: match holds {
                    Ok(content) => content.to_string(),
                    Err(error) => format!("unreadable ({error})"),
                },
                uses: self
                    .uses
                    .iter()
                    .filter(|its| its.partition == Some(number))
                    .map(|its| its.how.clone())
                    .collect(),
            });
        }
        if self.holds == Holds::Cas && unused {
            self.holds = Holds::Other("holds a Larder that was never started".into());
        }
        Ok(())
    }
}

/// Says what a refusal to open a device means.
pub(super) fn open(path: &Path, opened: Result<Device, disk::Error>) -> Result<Device> {
    opened.map_err(|error| {
        let denied = !rustix::process::geteuid().is_root()
            && matches!(&error, disk::Error::Path { cause, .. }
                if cause.kind() == std::io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::from(error);
        match denied {
            true => error.context(format!(
                "{} may only be used by root: run the command with sudo",
                path.display()
            )),
            false => error,
        }
    })
}

/// Vendor and model, as the kernel tells them.
fn model(folder: &Path) -> Option<String> {
    let model = text(&folder.join("device/model"))?;
    match text(&folder.join("device/vendor")) {
        // "ATA" is the kernel's word for all of them, 0x1af4 a PCI number.
        Some(vendor) if vendor != "ATA" && !vendor.starts_with("0x") => {
            Some(format!("{vendor} {model}"))
        }
        _ => Some(model),
    }
}

/// Serial number: virtio and NVMe have a file, SCSI and SATA the vital product data page 0x80
/// (SPC-5, 7.7.19; four bytes of header), USB the device far above.
fn serial(folder: &Path) -> Option<String> {
    for file in ["serial", "device/serial"] {
        if let Some(serial) = text(&folder.join(file)) {
            return Some(serial);
        }
    }
    if let Ok(page) = std::fs::read(folder.join("device/vpd_pg80")) {
        let serial = String::from_utf8_lossy(page.get(4..).unwrap_or_default());
        let serial = serial.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if !serial.is_empty() {
            return Some(serial.to_owned());
        }
    }
    let device = std::fs::canonicalize(folder.join("device")).ok()?;
    device
        .ancestors()
        .take(8)
        .find(|folder| folder.join("idVendor").exists())
        .and_then(|usb| text(&usb.join("serial")))
}

/// A part of a device.
struct Part<'a> {
    device: &'a mut Device,
    start: u64,
    size: u64,
}

impl ReadAt for Part<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), disk::Error> {
        self.device
            .read_at(self.start.saturating_add(offset), buffer)
    }
}
