//! From a [`Machine`] to QEMU's command line.

use std::path::{Path, PathBuf};

use crate::accel::Accel;
use crate::disk::Source;
use crate::{Disk, Firmware, Machine, Nic, OvmfFiles, WatchdogAction};

/// The files of one start.
#[derive(Debug)]
pub(crate) struct Paths {
    /// QMP's socket.
    pub(crate) qmp: PathBuf,
    /// The console's socket.
    pub(crate) console: PathBuf,
    /// The console's log.
    pub(crate) serial: PathBuf,
    /// Content of each credential, in order.
    pub(crate) credentials: Vec<PathBuf>,
    /// UEFI code and this start's variables.
    pub(crate) ovmf: Option<OvmfFiles>,
}

/// A path as a value of QEMU's option syntax: commas, at which it splits, are doubled; it starts
/// with a slash, or QEMU would take what is before a colon for a protocol.
pub(crate) fn escape(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.to_string_lossy().replace(',', ",,")
}

/// The arguments behind the program's name. Nothing secret is in them.
pub(crate) fn arguments(machine: &Machine, accel: Accel, paths: &Paths) -> Vec<String> {
    let mut args = Args::default();
    args.one("-nodefaults")
        .one("-no-user-config")
        .two("-display", "none");
    args.two("-name", machine.name.replace(',', ",,"));
    // Secure Boot alone needs system management mode, and it makes the firmware slower.
    args.two("-machine", "q35,smm=off,hpet=off,vmport=off");
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg,thread=multi", "qemu64"),
    };
    args.two("-accel", accel)
        .two("-cpu", machine.cpu_model.as_deref().unwrap_or(cpu));
    args.two("-smp", machine.cpus.to_string())
        .two("-m", format!("{}M", machine.memory_mib));
    args.two(
        "-rtc",
        match &machine.rtc {
            Some(base) => format!("base={base}"),
            None => "base=utc".to_owned(),
        },
    );
    if let Some(uuid) = &machine.uuid {
        args.two("-uuid", uuid);
    }
    args.one("-S");
    let reboot = if machine.end_at_reboot {
        "shutdown"
    } else {
        "reset"
    };
    args.two("-action", format!("reboot={reboot}"));

    args.two(
        "-chardev",
        format!(
            "socket,id=qmp,server=on,wait=off,path={}",
            escape(&paths.qmp)
        ),
    );
    args.two("-mon", "chardev=qmp,mode=control");
    args.two(
        "-chardev",
        format!(
            "socket,id=console,server=on,wait=off,path={},logfile={},logappend=on",
            escape(&paths.console),
            escape(&paths.serial)
        ),
    );
    args.two("-serial", "chardev:console");
    args.two("-device", "virtio-rng-pci");

    if let Some(files) = &paths.ovmf {
        let pflash = "if=pflash,format=raw,unit";
        args.two(
            "-drive",
            format!("{pflash}=0,readonly=on,file={}", escape(&files.code)),
        );
        args.two("-drive", format!("{pflash}=1,file={}", escape(&files.vars)));
    }
    if let Some(kernel) = &machine.kernel {
        args.two("-kernel", kernel.image.to_string_lossy());
        if let Some(initrd) = &kernel.initrd {
            args.two("-initrd", initrd.to_string_lossy());
        }
        // QEMU refuses -append without a kernel and takes an empty one with it.
        args.two("-append", &kernel.cmdline);
    }
    // The option ROM that starts a kernel given to QEMU holds place 0 of the firmware's order.
    disks(
        &machine.disks,
        usize::from(machine.kernel.is_some()),
        &mut args,
    );
    for (index, nic) in machine.nics.iter().enumerate() {
        args.two("-netdev", nic.backend(index, escape))
            .two("-device", Nic::card(index));
    }
    if let Some(action) = machine.watchdog {
        let action = match action {
            WatchdogAction::Reset => "reset",
            WatchdogAction::Poweroff => "poweroff",
            WatchdogAction::Nothing => "none",
        };
        args.two("-device", "i6300esb")
            .two("-action", format!("watchdog={action}"));
    }
    for (credential, path) in machine.credentials.iter().zip(&paths.credentials) {
        args.0.extend(credential.args(&escape(path)));
    }
    args.0.extend(machine.extra.iter().cloned());
    args.0
}

fn disks(disks: &[Disk], first_boot: usize, args: &mut Args) {
    for (index, disk) in disks.iter().enumerate() {
        let (Source::File(path) | Source::Nbd(path)) = &disk.source;
        args.two("-drive", disk.drive(index, &escape(path)));
        let bus_number = disks[..index]
            .iter()
            .filter(|other| other.bus == disk.bus)
            .count();
        for device in disk.devices(index, bus_number, first_boot + index) {
            args.two("-device", device);
        }
    }
}

/// Whether the machine needs UEFI files, and where it wants its variables kept.
pub(crate) fn wants_ovmf(machine: &Machine) -> Option<Option<&Path>> {
    match &machine.firmware {
        Firmware::SeaBios => None,
        Firmware::Ovmf { vars } => Some(vars.as_deref()),
    }
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn one(&mut self, arg: impl Into<String>) -> &mut Args {
        self.0.push(arg.into());
        self
    }

    fn two(&mut self, option: &str, value: impl Into<String>) -> &mut Args {
        self.one(option).one(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bus, Credential, Forward, Kernel};

    fn paths() -> Paths {
        Paths {
            qmp: "/t/qmp".into(),
            console: "/t/console".into(),
            serial: "/t/serial.log".into(),
            credentials: vec!["/t/credential-0".into(), "/t/credential-1".into()],
            ovmf: Some(OvmfFiles {
                code: "/fw/CODE".into(),
                vars: "/t/VARS".into(),
            }),
        }
    }

    /// Options with their values, one pair a line.
    fn shown(args: &[String]) -> String {
        args.join("\n")
            .replace("\n-", "\n\u{0}-")
            .replace('\n', " ")
            .replace(" \u{0}", "\n")
    }

    #[test]
    fn everything_at_once() {
        let machine = Machine::new("all, of it")
            .memory_mib(2048)
            .cpus(2)
            .firmware(Firmware::Ovmf { vars: None })
            .disk(
                Disk::file("/d/a,b.raw")
                    .on(Bus::VirtioScsi)
                    .serial("SDA")
                    .snapshot(),
            )
            .disk(
                Disk::nbd("/d/nbd.sock")
                    .on(Bus::VirtioScsi)
                    .block_size(4096),
            )
            .disk(Disk::file("/d/blk.raw").read_only())
            .disk(Disk::file("/d/nvme.raw").on(Bus::Nvme).no_flush())
            .disk(Disk::file("/d/sata.raw").on(Bus::Ahci))
            .nic(Nic::User {
                forwards: vec![Forward::to(443)],
            })
            .nic(Nic::NoCarrier)
            .nic(Nic::Datagram {
                local: "/d/l".into(),
                remote: "/d/r".into(),
            })
            .rtc("2000-01-01T00:00:00")
            .watchdog(WatchdogAction::Reset)
            .uuid("00000000-0000-4000-8000-000000000001")
            .end_at_reboot()
            .credential(Credential::smbios("larder.host", "dev"))
            .credential(Credential::fw_cfg("larder.cache-token", "secret canary"))
            .extra_args(["-device", "pvpanic"]);
        let args = arguments(&machine, Accel::Tcg, &paths());
        let shown = shown(&args);
        assert!(
            !shown.contains("canary") && !shown.contains("c2VjcmV0"),
            "a secret in argv"
        );
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn direct_kernel_boot_with_kvm() {
        let machine = Machine::new("direct")
            .kernel(Kernel {
                image: "/k/vmlinuz".into(),
                initrd: Some("/k/initrd".into()),
                cmdline: "console=ttyS0 panic=10".into(),
            })
            .disk(Disk::file("/d/larder.raw"));
        let args = arguments(
            &machine,
            Accel::Kvm,
            &Paths {
                ovmf: None,
                ..paths()
            },
        );
        insta::assert_snapshot!(shown(&args));
    }
}
