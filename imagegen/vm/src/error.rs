//! What can go wrong with a virtual machine.

use std::io;
use std::path::PathBuf;

/// An error of this crate. Each says what failed, on which machine or path, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program of the host is missing.
    #[error("{program} is not installed; install it with: apt-get install {package}")]
    MissingProgram {
        /// Name of the program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The UEFI firmware is missing.
    #[error("{path} is missing: there is no UEFI firmware; install it with: apt-get install ovmf")]
    MissingFirmware {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The description of the machine cannot be built.
    #[error("machine {name}: {why}")]
    BadMachine {
        /// Name of the machine.
        name: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// No port of the host was free for a forward.
    #[error("machine {name}: cannot forward a port to the guest's port {guest}: {why}")]
    NoPort {
        /// Name of the machine.
        name: String,
        /// Port inside the guest.
        guest: u16,
        /// QEMU's words.
        why: String,
    },
    /// QEMU refused a command.
    #[error("QEMU refuses {command}: {why}")]
    Refused {
        /// The QMP command.
        command: String,
        /// QEMU's words.
        why: String,
    },
    /// The QMP conversation broke.
    #[error("QMP, {doing}: {source}")]
    Qmp {
        /// What was being done.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// The machine ended though something was still expected of it.
    #[error("machine {name} has ended ({status}) while waiting for {waiting}\n{tail}")]
    Ended {
        /// Name of the machine.
        name: String,
        /// Exit status of QEMU.
        status: String,
        /// What was waited for.
        waiting: String,
        /// QEMU's own words and the end of the serial log.
        tail: String,
    },
    /// Nothing new appeared for too long.
    #[error(
        "machine {name}: nothing new on the console for {seconds} s while waiting for {waiting} \
         (QEMU has used {cpu:.1} CPU s)\n{tail}"
    )]
    Quiet {
        /// Name of the machine.
        name: String,
        /// How long it was quiet, seconds.
        seconds: u64,
        /// What was waited for.
        waiting: String,
        /// CPU seconds of the QEMU process so far.
        cpu: f64,
        /// The end of the serial log.
        tail: String,
    },
    /// The machine used up its CPU budget.
    #[error(
        "machine {name}: {cpu:.1} CPU s used, {budget:.0} allowed, while waiting for {waiting}\n{tail}"
    )]
    Budget {
        /// Name of the machine.
        name: String,
        /// CPU seconds of the QEMU process so far.
        cpu: f64,
        /// What was allowed.
        budget: f64,
        /// What was waited for.
        waiting: String,
        /// The end of the serial log.
        tail: String,
    },
    /// An event did not come.
    #[error("machine {name}: no {event} event within {seconds} s")]
    NoEvent {
        /// Name of the machine.
        name: String,
        /// Name of the QMP event.
        event: String,
        /// How long was waited, seconds.
        seconds: u64,
    },
    /// Ctrl-C was pressed while waiting.
    #[error("interrupted")]
    Interrupted,
    /// `LARDER_ACCEL` or a flag holds something else than it may.
    #[error("accelerator `{value}`: say kvm, tcg or auto")]
    BadAccel {
        /// The value.
        value: String,
    },
    /// KVM was demanded and does not work.
    #[error("KVM was asked for, but {why}; leave the choice to the probe, or ask for tcg")]
    NoKvm {
        /// What the probe saw.
        why: String,
    },
}

impl Error {
    /// Closure that turns an I/O error on `path` into [`Error::File`].
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { what, path, source }
    }
}
