//! What stage1 says, and what it does when it cannot go on.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

/// Why the machine has to reboot, and how long the sentence stays on the screen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fatal {
    pub(crate) message: String,
    pub(crate) delay: Duration,
}

impl Fatal {
    /// Reboots after 10 s.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            delay: Duration::from_secs(10),
        }
    }

    /// Reboots after `delay`.
    pub(crate) fn after(delay: Duration, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            delay,
        }
    }
}

impl From<disk::Error> for Fatal {
    fn from(error: disk::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Progress and warnings. Warnings are kept for the boot report: the system repeats them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    warnings: Vec<String>,
}

impl Log {
    /// Progress, for whoever watches.
    pub(crate) fn say(&mut self, text: &str) {
        write(Level::Info, text);
    }

    /// A step of the boot, shown on every console: with `quiet` the kernel's log is not.
    pub(crate) fn step(&mut self, text: &str) {
        self.say(text);
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        for name in active.split_ascii_whitespace() {
            // A console that takes nothing (flow control, no screen) must not keep the boot.
            let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
            if let Ok(console) = rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty()) {
                let _ = rustix::io::write(&console, format!("Larder: {text}\r\n").as_bytes());
            }
        }
    }

    /// Something the operator should know.
    pub(crate) fn warn(&mut self, text: &str) {
        write(Level::Error, text);
        self.warnings.push(text.into());
    }

    /// All warnings so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// Levels of the kernel's log; the second is shown with `quiet` on the command line, too.
#[derive(Clone, Copy)]
enum Level {
    Info = 6,
    Error = 3,
}

/// Writes to the kernel's log, which goes to every console; to standard error if there is none.
/// Each message opens the log anew: the kernel limits the rate of each opener.
fn write(level: Level, text: &str) {
    let line = format!("<{}>stage1: {text}\n", level as u8);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    if written.is_err() {
        eprintln!("stage1: {text}");
    }
}

/// Makes the kernel accept everything that is said, and reboot 10 s after a panic even if the
/// command line does not ask for it.
pub(crate) fn prepare() {
    // Both are comforts; a kernel without them boots all the same.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let _ = std::fs::write("/proc/sys/kernel/panic", "10\n");
    open_standard_streams();
}

/// Standard streams that the kernel has not given us (it could not open a console): a console if
/// there is one by now, else nothing.
fn open_standard_streams() {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
    let missing = |fd| rustix::io::fcntl_getfd(fd).is_err();
    let missing = [missing(stdin()), missing(stdout()), missing(stderr())];
    if missing == [false; 3] {
        return;
    }
    let open = |path| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
    };
    let Ok(stream) = open("/dev/console").or_else(|_| open("/dev/null")) else {
        return;
    };
    let dup = [dup2_stdin, dup2_stdout, dup2_stderr];
    for (_, dup) in missing.iter().zip(dup).filter(|(missing, _)| **missing) {
        let _ = dup(&stream);
    }
    // It may have become one of the three itself.
    if stream.as_raw_fd() <= 2 {
        std::mem::forget(stream);
    }
}

/// A panic of PID 1 would be a panic of the kernel: say where, then reboot.
pub(crate) fn reboot_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        give_up(&Fatal::new(format!("internal error, {info}")));
    }));
}

/// Says why, waits, reboots.
pub(crate) fn give_up(fatal: &Fatal) -> ! {
    write(Level::Error, &fatal.message);
    write(
        Level::Error,
        &format!("rebooting in {} s", fatal.delay.as_secs()),
    );
    std::thread::sleep(fatal.delay);
    reboot()
}

/// Reboots. Nothing is flushed: what counts was flushed when it was written, and a dead disk would
/// keep us here.
pub(crate) fn reboot() -> ! {
    let error = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    write(
        Level::Error,
        &format!("the kernel does not reboot: {error:?}"),
    );
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
