//! Disks of a machine.

use std::path::PathBuf;

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// virtio-scsi: `/dev/sda`, as at the users' hosting company.
    VirtioScsi,
    /// virtio-blk: `/dev/vda`.
    #[default]
    VirtioBlk,
    /// NVMe: `/dev/nvme0n1`.
    Nvme,
    /// AHCI (SATA): `/dev/sda`. Only 512-byte sectors.
    Ahci,
}

/// What holds the bytes of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A raw file or block device.
    File(PathBuf),
    /// An NBD server on a unix socket (its default export).
    Nbd(PathBuf),
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What holds the bytes.
    pub source: Source,
    /// How it is attached.
    pub bus: Bus,
    /// Serial number that the guest sees; at most 20 bytes.
    pub serial: Option<String>,
    /// Logical (and physical) block size, 512 or 4096.
    pub block_size: u32,
    /// The guest cannot write.
    pub read_only: bool,
    /// Writes go to an overlay that is thrown away with the machine; the source stays as it is.
    pub snapshot: bool,
    /// Size in bytes that the overlay of a snapshot is grown to before the machine runs.
    pub grow_to: Option<u64>,
    /// The guest's flushes reach the source. Off for speed where the host's death loses nothing
    /// that matters; on for an NBD server that wants to see them.
    pub flush: bool,
}

impl Disk {
    /// A raw file, on virtio-blk, changed in place, flushed.
    pub fn file(path: impl Into<PathBuf>) -> Disk {
        Disk {
            source: Source::File(path.into()),
            bus: Bus::default(),
            serial: None,
            block_size: 512,
            read_only: false,
            snapshot: false,
            grow_to: None,
            flush: true,
        }
    }

    /// What an NBD server on this unix socket serves.
    pub fn nbd(socket: impl Into<PathBuf>) -> Disk {
        Disk {
            source: Source::Nbd(socket.into()),
            ..Disk::file("")
        }
    }

    /// On this bus.
    #[must_use]
    pub fn on(self, bus: Bus) -> Disk {
        Disk { bus, ..self }
    }

    /// With this serial number.
    #[must_use]
    pub fn serial(self, serial: impl Into<String>) -> Disk {
        Disk {
            serial: Some(serial.into()),
            ..self
        }
    }

    /// With this logical block size, 512 or 4096.
    #[must_use]
    pub fn block_size(self, block_size: u32) -> Disk {
        Disk { block_size, ..self }
    }

    /// The guest cannot write.
    #[must_use]
    pub fn read_only(self) -> Disk {
        Disk {
            read_only: true,
            ..self
        }
    }

    /// Writes are thrown away with the machine.
    #[must_use]
    pub fn snapshot(self) -> Disk {
        Disk {
            snapshot: true,
            ..self
        }
    }

    /// Grows the throw-away overlay to this size in bytes.
    #[must_use]
    pub fn grow_to(self, size: u64) -> Disk {
        Disk {
            grow_to: Some(size),
            ..self
        }
    }

    /// The guest's flushes end in QEMU: quicker, and lossless unless the host dies.
    #[must_use]
    pub fn no_flush(self) -> Disk {
        Disk {
            flush: false,
            ..self
        }
    }

    /// Name of the block back end of disk number `index`, for QMP's `block_resize` and
    /// `device_del`.
    pub fn node(index: usize) -> String {
        format!("disk{index}")
    }

    /// Why QEMU could not attach it, if so.
    pub(crate) fn complaint(&self) -> Option<String> {
        let serial = self.serial.as_deref().unwrap_or_default();
        let odd = |b: u8| !b.is_ascii_alphanumeric() && !b"._-".contains(&b);
        if ![512, 4096].contains(&self.block_size) {
            return Some(format!(
                "block size {}: only 512 and 4096 exist",
                self.block_size
            ));
        }
        if self.bus == Bus::Ahci && self.block_size != 512 {
            return Some("an AHCI disk has 512-byte sectors; use another bus for 4096".into());
        }
        if self.bus == Bus::Ahci && self.read_only {
            return Some("an AHCI disk cannot be read-only; use another bus".into());
        }
        if serial.len() > 20 || serial.bytes().any(odd) {
            return Some(format!(
                "serial `{serial}`: at most 20 letters, digits, `.`, `_`, `-`"
            ));
        }
        if self.grow_to.is_some() && !self.snapshot {
            return Some("grow_to is for snapshots; make the file itself larger".into());
        }
        None
    }

    /// The `-drive` value. `path` is the source's path, already escaped.
    pub(crate) fn drive(&self, index: usize, path: &str) -> String {
        let node = Disk::node(index);
        let mut drive = match self.source {
            Source::File(_) => format!("if=none,id={node},format=raw,file={path}"),
            Source::Nbd(_) => format!(
                "if=none,id={node},driver=raw,file.driver=nbd,file.server.type=unix,\
                 file.server.path={path}"
            ),
        };
        // A throw-away overlay has no use for flushes.
        drive.push_str(if self.flush && !self.snapshot {
            ",cache=writeback"
        } else {
            ",cache=unsafe"
        });
        drive.push_str(",discard=unmap");
        if self.read_only {
            drive.push_str(",readonly=on");
        }
        if self.snapshot {
            drive.push_str(",snapshot=on");
        }
        drive
    }

    /// The `-device` values, in order. `bus_number` counts the disks on the same bus; `boot` is the
    /// disk's place in the firmware's order.
    pub(crate) fn devices(&self, index: usize, bus_number: usize, boot: usize) -> Vec<String> {
        let node = Disk::node(index);
        let serial = self
            .serial
            .clone()
            .unwrap_or_else(|| format!("LARDER{index}"));
        let size = self.block_size;
        let sizes = format!("logical_block_size={size},physical_block_size={size}");
        // Errors are the guest's to handle; QEMU's default is to stop the machine on ENOSPC.
        let report = "werror=report,rerror=report";
        let boot = format!("bootindex={boot}");
        let id = format!("id=dev{index}");
        match self.bus {
            Bus::VirtioBlk => vec![format!(
                "virtio-blk-pci,{id},drive={node},serial={serial},{sizes},{report},{boot}"
            )],
            Bus::VirtioScsi => {
                let mut devices = Vec::new();
                if bus_number == 0 {
                    devices.push("virtio-scsi-pci,id=scsi".to_owned());
                }
                devices.push(format!(
                    "scsi-hd,{id},bus=scsi.0,scsi-id={bus_number},drive={node},serial={serial},\
                     {sizes},{report},{boot}"
                ));
                devices
            }
            // rerror and werror do not exist for it: it always reports.
            Bus::Nvme => vec![
                format!("nvme,id=nvme{bus_number},serial={serial},{boot}"),
                format!("nvme-ns,{id},bus=nvme{bus_number},drive={node},{sizes}"),
            ],
            Bus::Ahci => vec![format!(
                "ide-hd,{id},bus=ide.{bus_number},drive={node},serial={serial},{report},{boot}"
            )],
        }
    }
}
