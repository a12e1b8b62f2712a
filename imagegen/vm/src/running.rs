//! A machine that runs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::accel::{AccelChoice, choose_accel};
use crate::args::{Paths, arguments, wants_ovmf};
use crate::firmware::prepare_vars;
use crate::nic::port_in_usernet;
use crate::process::{Usage, find_program, spawn_tied, usage};
use crate::serial::Serial;
use crate::{
    Disk, Error, Event, Found, HostPort, Machine, Nic, OvmfFiles, Patience, Qmp, Result, find_ovmf,
    interrupt,
};

/// How often waiting calls look again.
const POLL: Duration = Duration::from_millis(30);
/// How long QEMU may take to open its QMP socket, and to end when told to.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(10);

/// A port of the host's loopback that leads into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Port on 127.0.0.1.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// A started machine. It may be used from several threads; it ends when this value is dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    pid: u32,
    accel: AccelChoice,
    forwarded: Vec<Forwarded>,
    console: PathBuf,
    stderr: PathBuf,
    inner: Mutex<Inner>,
    // Last: the folder goes after the process that uses it.
    folder: TempDir,
}

#[derive(Debug)]
struct Inner {
    child: Child,
    status: Option<ExitStatus>,
    usage: Usage,
    qmp: Qmp,
    /// All events so far; those before `event_cursor` have been waited for.
    events: Vec<Event>,
    event_cursor: usize,
    serial: Serial,
}

impl Running {
    /// Starts QEMU paused, arranges what needs QMP, and lets it run.
    pub(crate) fn start(machine: &Machine) -> Result<Running> {
        let qemu = find_program("qemu-system-x86_64", "qemu-system-x86")?;
        let accel = match machine.accel {
            Some(accel) => AccelChoice {
                accel,
                why: "asked for".into(),
            },
            None => choose_accel(None)?,
        };
        let folder = tempfile::Builder::new()
            .prefix("larder-vm.")
            .tempdir()
            .map_err(Error::file("make a folder in", std::env::temp_dir()))?;
        let paths = prepare(machine, folder.path())?;
        let skip = std::fs::metadata(&paths.serial).map_err(Error::file("read", &paths.serial))?;
        let serial = Serial::open(&paths.serial, skip.len())?;
        let stderr = folder.path().join("stderr");
        let mut command = Command::new(&qemu);
        command
            .args(arguments(machine, accel.accel, &paths))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).map_err(Error::file("create", &stderr))?);
        let mut child = spawn_tied(command).map_err(|source| Error::Spawn {
            program: qemu.display().to_string(),
            source,
        })?;
        let qmp = match connect(&mut child, &paths.qmp, machine, &stderr) {
            Ok(qmp) => qmp,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let mut running = Running {
            name: machine.name.clone(),
            pid: child.id(),
            accel,
            forwarded: Vec::new(),
            console: paths.console,
            stderr,
            inner: Mutex::new(Inner {
                child,
                status: None,
                usage: Usage::default(),
                qmp,
                events: Vec::new(),
                event_cursor: 0,
                serial,
            }),
            folder,
        };
        // From here on an early return drops `running`, which ends QEMU.
        running.arrange(machine)?;
        if !machine.paused {
            running.resume()?;
        }
        Ok(running)
    }

    /// What is done before the first instruction: forwards, overlays, links.
    fn arrange(&mut self, machine: &Machine) -> Result<()> {
        for (index, nic) in machine.nics.iter().enumerate() {
            match nic {
                Nic::User { forwards } => {
                    for forward in forwards {
                        let host = self.forward(index, forward.host, forward.guest)?;
                        self.forwarded.push(Forwarded {
                            host,
                            guest: forward.guest,
                        });
                    }
                }
                Nic::NoCarrier => self.set_link(index, false)?,
                Nic::Silent | Nic::Datagram { .. } => {}
            }
        }
        for (index, disk) in machine.disks.iter().enumerate() {
            if let Some(size) = disk.grow_to {
                self.resize_disk(index, size)?;
            }
        }
        Ok(())
    }

    /// Makes one forward and gives the host's port.
    fn forward(&self, nic: usize, host: HostPort, guest: u16) -> Result<u16> {
        let candidates = match host {
            HostPort::Any => 0..=0,
            HostPort::Exactly(port) => port..=port,
            HostPort::From(port) => port..=port.saturating_add(99),
        };
        let mut why = String::new();
        for port in candidates {
            let rule = format!("tcp:127.0.0.1:{port}-:{guest}");
            let mut inner = self.lock();
            why = inner
                .qmp
                .human(&format!("hostfwd_add {} {rule}", Nic::netdev(nic)))?;
            if !why.trim().is_empty() {
                continue;
            }
            if port != 0 {
                return Ok(port);
            }
            let info = inner.qmp.human("info usernet")?;
            let known: Vec<u16> = self.forwarded.iter().map(|forward| forward.host).collect();
            if let Some(port) = port_in_usernet(&info, guest, &known) {
                return Ok(port);
            }
            why = format!("QEMU does not show the forward that it made:\n{info}");
        }
        Err(Error::NoPort {
            name: self.name.clone(),
            guest,
            why: why.trim().to_owned(),
        })
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The accelerator and why.
    pub fn accel(&self) -> &AccelChoice {
        &self.accel
    }

    /// All forwards, in the order they were asked for.
    pub fn forwarded(&self) -> &[Forwarded] {
        &self.forwarded
    }

    /// The host's port of the first forward to `guest`.
    pub fn port(&self, guest: u16) -> Option<u16> {
        self.forwarded
            .iter()
            .find(|forward| forward.guest == guest)
            .map(|forward| forward.host)
    }

    /// The private folder of this start; gone with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the QEMU process has used so far; after its end, what it had at the last look.
    pub fn usage(&self) -> Usage {
        self.lock().look().usage
    }

    /// CPU seconds of the QEMU process so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.usage().cpu.as_secs_f64()
    }

    /// Everything on the console so far, as plain text.
    pub fn console_text(&self) -> Result<String> {
        let mut inner = self.lock();
        inner.serial.refresh()?;
        Ok(inner.serial.text().to_owned())
    }

    /// What of the console is new since `shown` bytes of [`Running::console_text`].
    pub fn console_since(&self, shown: usize) -> Result<String> {
        let mut inner = self.lock();
        inner.serial.refresh()?;
        Ok(inner
            .serial
            .text()
            .get(shown..)
            .unwrap_or_default()
            .to_owned())
    }

    /// Types on the console.
    ///
    /// # Errors
    /// [`Error::File`] if the machine has ended.
    pub fn send_console(&self, bytes: &[u8]) -> Result<()> {
        UnixStream::connect(&self.console)
            .and_then(|mut stream| stream.write_all(bytes))
            .map_err(Error::file("write to", &self.console))
    }

    /// Waits until one of `patterns` is on the console, behind what was found before.
    ///
    /// # Errors
    /// [`Error::Quiet`], [`Error::Budget`], [`Error::Ended`], [`Error::Interrupted`].
    pub fn wait_console(&self, patterns: &[&str], patience: Patience) -> Result<Found> {
        self.wait_for(
            &format!("{patterns:?} on the console"),
            patience,
            POLL,
            || Ok(self.lock().serial.find(patterns)),
        )
    }

    /// What is on the console by now is not found by later waits.
    pub fn skip_console(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.serial.refresh()?;
        inner.serial.skip_to_end();
        Ok(())
    }

    /// Waits until `check`, asked every `every`, gives a value; `waiting` says what for. A console
    /// that shows something new counts as progress.
    ///
    /// # Errors
    /// As [`Running::wait_console`], and what `check` returns.
    pub fn wait_for<T>(
        &self,
        waiting: &str,
        patience: Patience,
        every: Duration,
        mut check: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let mut progress = Instant::now();
        loop {
            // The order matters: what an ended machine said last is still looked at.
            let ended = self.ended();
            if self.lock().serial.refresh()? {
                progress = Instant::now();
            }
            if let Some(value) = check()? {
                return Ok(value);
            }
            if interrupt::requested() {
                return Err(Error::Interrupted);
            }
            let name = || self.name.clone();
            let waiting = || waiting.to_owned();
            let cpu = self.cpu_seconds();
            if let Some(status) = ended {
                let (status, tail) = (status.to_string(), self.tail());
                return Err(Error::Ended {
                    name: name(),
                    status,
                    waiting: waiting(),
                    tail,
                });
            }
            if progress.elapsed() > patience.quiet {
                let (seconds, tail) = (patience.quiet.as_secs(), self.tail());
                return Err(Error::Quiet {
                    name: name(),
                    seconds,
                    waiting: waiting(),
                    cpu,
                    tail,
                });
            }
            if cpu > patience.cpu_seconds {
                let (budget, tail) = (patience.cpu_seconds, self.tail());
                return Err(Error::Budget {
                    name: name(),
                    cpu,
                    budget,
                    waiting: waiting(),
                    tail,
                });
            }
            std::thread::sleep(every);
        }
    }

    /// QEMU's own words, if any, and the last lines of the console.
    pub fn tail(&self) -> String {
        let mut tail = self.qemu_words();
        let mut inner = self.lock();
        // A log that cannot be read shows as an empty one; the error at hand matters more.
        let _ = inner.serial.refresh();
        tail.push_str(&inner.serial.tail(40));
        tail
    }

    /// What QEMU itself has said, warnings included.
    pub fn qemu_words(&self) -> String {
        // The cards without a network are meant to have none.
        let said = read_lossy(&self.stderr);
        let wanted = |line: &&str| !line.ends_with("is not connected to host network");
        said.lines()
            .filter(wanted)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Runs a QMP command.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Qmp`].
    pub fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        self.lock().qmp.execute(command, arguments)
    }

    /// Lets a paused machine run.
    pub fn resume(&self) -> Result<()> {
        self.qmp("cont", json!({})).map(drop)
    }

    /// Stops the CPUs.
    pub fn pause(&self) -> Result<()> {
        self.qmp("stop", json!({})).map(drop)
    }

    /// Hard reset, as the button does it.
    pub fn reset(&self) -> Result<()> {
        self.qmp("system_reset", json!({})).map(drop)
    }

    /// Presses the power button (ACPI): the guest shuts down in order.
    pub fn power_button(&self) -> Result<()> {
        self.qmp("system_powerdown", json!({})).map(drop)
    }

    /// Sets the size of disk number `index`, in bytes.
    pub fn resize_disk(&self, index: usize, size: u64) -> Result<()> {
        self.qmp(
            "block_resize",
            json!({ "device": Disk::node(index), "size": size }),
        )
        .map(drop)
    }

    /// Plugs or pulls the cable of network card number `index`.
    pub fn set_link(&self, index: usize, up: bool) -> Result<()> {
        self.qmp("set_link", json!({ "name": Nic::device(index), "up": up }))
            .map(drop)
    }

    /// All QMP events so far.
    pub fn events(&self) -> Result<Vec<Event>> {
        let mut inner = self.lock();
        inner.take_events()?;
        Ok(inner.events.clone())
    }

    /// Waits for the next event of this name; those before it are passed over.
    ///
    /// # Errors
    /// [`Error::NoEvent`] after `timeout`.
    pub fn wait_event(&self, name: &str, timeout: Duration) -> Result<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            let late = Instant::now() > deadline;
            let mut inner = self.lock();
            inner.take_events()?;
            let cursor = inner.event_cursor;
            let found = inner.events[cursor..]
                .iter()
                .position(|event| event.name == name);
            if let Some(at) = found {
                inner.event_cursor = cursor + at + 1;
                return Ok(inner.events[cursor + at].clone());
            }
            drop(inner);
            if interrupt::requested() {
                return Err(Error::Interrupted);
            }
            if late || self.ended().is_some() {
                let (name, event) = (self.name.clone(), name.to_owned());
                return Err(Error::NoEvent {
                    name,
                    event,
                    seconds: timeout.as_secs(),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// How QEMU ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.lock().look().status
    }

    /// Waits for QEMU's end; `None` if it still runs after `timeout`.
    pub fn wait_end(&self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.ended();
            if status.is_some() || Instant::now() > deadline || interrupt::requested() {
                return status;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends QEMU at once, as a power cut does: what the guest has not flushed is lost only so far
    /// as QEMU itself still held it.
    pub fn kill(&self) {
        let mut inner = self.lock();
        inner.look();
        if inner.status.is_none() {
            let _ = inner.child.kill();
            inner.status = inner.child.wait().ok();
        }
    }

    /// Ends QEMU in order (the guest is not asked); by force if it does not.
    pub fn quit(&self) {
        if self.ended().is_none() {
            // SIGTERM, not QMP's quit: it works in any state of the conversation.
            if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let deadline = Instant::now() + END;
            while self.ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held leaves nothing half-done that a later reader could not bear.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Looks at the process: its status, and while it runs its usage.
    fn look(&mut self) -> &Inner {
        if self.status.is_none() {
            // An unreaped process still has its figures, so take them first.
            if let Ok(usage) = usage(self.child.id()) {
                self.usage = usage;
            }
            self.status = self.child.try_wait().ok().flatten();
        }
        self
    }

    fn take_events(&mut self) -> Result<()> {
        while let Some(event) = self.qmp.poll_event()? {
            self.events.push(event);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.quit();
    }
}

/// Makes the files of one start in `folder`.
fn prepare(machine: &Machine, folder: &Path) -> Result<Paths> {
    // sun_path of unix(7) holds 108 bytes, the final NUL included.
    if folder.as_os_str().len() > 95 {
        return Err(Error::BadMachine {
            name: machine.name.clone(),
            why: format!(
                "{} is too long a path for sockets; set TMPDIR to a shorter one",
                folder.display()
            ),
        });
    }
    let ovmf = match wants_ovmf(machine) {
        None => None,
        Some(vars) => {
            let pristine = find_ovmf()?;
            let vars = vars.map_or_else(|| folder.join("vars.fd"), Path::to_owned);
            prepare_vars(&pristine.vars, &vars)?;
            Some(OvmfFiles {
                code: pristine.code,
                vars,
            })
        }
    };
    let mut credentials = Vec::new();
    for (index, credential) in machine.credentials.iter().enumerate() {
        let path = folder.join(format!("credential-{index}"));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&credential.file_content()))
            .map_err(Error::file("write", &path))?;
        credentials.push(path);
    }
    let serial = machine
        .serial_log
        .clone()
        .unwrap_or_else(|| folder.join("serial.log"));
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&serial)
        .map_err(Error::file("write", &serial))?;
    let (qmp, console) = (folder.join("qmp"), folder.join("console"));
    Ok(Paths {
        qmp,
        console,
        serial,
        credentials,
        ovmf,
    })
}

/// Connects to QMP as soon as QEMU has opened it.
fn connect(child: &mut Child, socket: &Path, machine: &Machine, stderr: &Path) -> Result<Qmp> {
    let deadline = Instant::now() + START;
    loop {
        let ended = child.try_wait().ok().flatten();
        match Qmp::connect(socket) {
            Ok(qmp) => return Ok(qmp),
            Err(error) if ended.is_none() && Instant::now() > deadline => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = ended {
            return Err(Error::Ended {
                name: machine.name.clone(),
                status: status.to_string(),
                waiting: "QEMU to start".into(),
                tail: read_lossy(stderr),
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
