//! What a machine is made of.

use std::path::PathBuf;

use crate::accel::Accel;
use crate::{Credential, Disk, Error, Firmware, Nic, Result, Running};

/// A Linux kernel that is started without a boot loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel (bzImage, Multiboot, or with UEFI any EFI program).
    pub image: PathBuf,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
}

/// What happens when the guest's watchdog fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogAction {
    /// Hard reset.
    Reset,
    /// QEMU ends.
    Poweroff,
    /// Only the `WATCHDOG` event.
    Nothing,
}

/// Builder of a machine: q35, virtio-rng, one serial port, nothing that is not asked for.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) name: String,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) cpu_model: Option<String>,
    pub(crate) accel: Option<Accel>,
    pub(crate) firmware: Firmware,
    pub(crate) kernel: Option<Kernel>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) rtc: Option<String>,
    pub(crate) watchdog: Option<WatchdogAction>,
    pub(crate) uuid: Option<String>,
    pub(crate) serial_log: Option<PathBuf>,
    pub(crate) end_at_reboot: bool,
    pub(crate) paused: bool,
    pub(crate) extra: Vec<String>,
}

impl Machine {
    /// A machine with 1 GiB, one CPU, no disk, no network and no firmware but SeaBIOS. `name` is
    /// for messages.
    pub fn new(name: impl Into<String>) -> Machine {
        Machine {
            name: name.into(),
            memory_mib: 1024,
            cpus: 1,
            cpu_model: None,
            accel: None,
            firmware: Firmware::SeaBios,
            kernel: None,
            disks: Vec::new(),
            nics: Vec::new(),
            credentials: Vec::new(),
            rtc: None,
            watchdog: None,
            uuid: None,
            serial_log: None,
            end_at_reboot: false,
            paused: false,
            extra: Vec::new(),
        }
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Machine {
        self.memory_mib = memory_mib;
        self
    }

    /// Number of CPUs. Without KVM one is cheapest where several machines run at a time.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Machine {
        self.cpus = cpus;
        self
    }

    /// QEMU's name of the CPU; by default `host` with KVM and `qemu64` without (a larger one is
    /// slower there).
    #[must_use]
    pub fn cpu_model(mut self, model: impl Into<String>) -> Machine {
        self.cpu_model = Some(model.into());
        self
    }

    /// The accelerator; by default the one that [`crate::choose_accel`] finds.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Machine {
        self.accel = Some(accel);
        self
    }

    /// The firmware.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Machine {
        self.firmware = firmware;
        self
    }

    /// Starts this kernel instead of what the disks hold.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Machine {
        self.kernel = Some(kernel);
        self
    }

    /// One more disk. The firmware tries them in the order they are added.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Machine {
        self.disks.push(disk);
        self
    }

    /// One more network card.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Machine {
        self.nics.push(nic);
        self
    }

    /// One more credential.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Machine {
        self.credentials.push(credential);
        self
    }

    /// Start of the hardware clock: `2000-01-01T00:00:00`, in UTC. By default the host's time.
    #[must_use]
    pub fn rtc(mut self, base: impl Into<String>) -> Machine {
        self.rtc = Some(base.into());
        self
    }

    /// An i6300esb watchdog and what happens when it fires.
    #[must_use]
    pub fn watchdog(mut self, action: WatchdogAction) -> Machine {
        self.watchdog = Some(action);
        self
    }

    /// The SMBIOS UUID of the machine.
    #[must_use]
    pub fn uuid(mut self, uuid: impl Into<String>) -> Machine {
        self.uuid = Some(uuid.into());
        self
    }

    /// Where the serial console is logged; appended to. By default in the machine's own folder.
    #[must_use]
    pub fn serial_log(mut self, path: impl Into<PathBuf>) -> Machine {
        self.serial_log = Some(path.into());
        self
    }

    /// The machine ends instead of rebooting.
    #[must_use]
    pub fn end_at_reboot(mut self) -> Machine {
        self.end_at_reboot = true;
        self
    }

    /// [`Machine::start`] leaves it paused, until [`Running::resume`].
    #[must_use]
    pub fn paused(mut self) -> Machine {
        self.paused = true;
        self
    }

    /// Arguments of QEMU that this crate has no name for.
    #[must_use]
    pub fn extra_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Machine {
        self.extra.extend(args.into_iter().map(Into::into));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it. The same machine may be started again once the last one has ended.
    ///
    /// # Errors
    /// A missing program or firmware names its Debian package; a disk that is not there, a
    /// credential's name, a taken port are named; QEMU's own complaint is passed on.
    pub fn start(&self) -> Result<Running> {
        self.check()?;
        Running::start(self)
    }

    /// What can be said before anything is started.
    fn check(&self) -> Result<()> {
        let bad = |why| Error::BadMachine {
            name: self.name.clone(),
            why,
        };
        for (index, disk) in self.disks.iter().enumerate() {
            if let Some(why) = disk.complaint() {
                return Err(bad(format!("disk {index}: {why}")));
            }
            let (crate::Source::File(path) | crate::Source::Nbd(path)) = &disk.source;
            if !path.exists() {
                return Err(bad(format!(
                    "disk {index}: {} does not exist",
                    path.display()
                )));
            }
        }
        for credential in &self.credentials {
            if let Some(why) = credential.complaint() {
                return Err(bad(why));
            }
        }
        let users = self
            .nics
            .iter()
            .filter(|nic| matches!(nic, Nic::User { .. }))
            .count();
        if users > 1 {
            return Err(bad(
                "two user networks would have the same addresses; use one".into(),
            ));
        }
        if self.memory_mib == 0 || self.cpus == 0 {
            return Err(bad("a machine needs memory and a CPU".into()));
        }
        Ok(())
    }
}
