//! A machine under test.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use imagegen::run::{Access, Guest};
use tempfile::TempDir;
use vm::{Credential, Disk, Firmware, Found, Machine, Nic, Patience, Running, Way, sparse_copy};

use crate::Setup;
use crate::recorder::Recorder;
use crate::scenario::say;
use crate::setup::{disks_folder, shipped_image, source_tree};
use crate::ssh::Ssh;

/// How often the guest is asked again.
const ASK: Duration = Duration::from_millis(300);

/// A machine with a private copy of the image, which it keeps over power cuts and restarts.
pub struct TestMachine {
    setup: Setup,
    access: Access,
    disk: PathBuf,
    // Before the recorder, which waits for its machine to be gone.
    on: Option<On>,
    recorder: Option<Recorder>,
    boots: u32,
    consoles: Vec<String>,
    failures: Vec<String>,
    // Last: the disks go after the machine.
    folder: TempDir,
}

/// What there is only while the power is on.
struct On {
    ssh: Ssh,
    guest: Guest,
    running: Running,
    booted: Instant,
    /// CPU seconds that QEMU had used before the present boot.
    cpu_before: f64,
    /// How many resets by the guest have been waited for.
    resets: usize,
}

impl TestMachine {
    /// Prepares the machine; it is switched off.
    pub(crate) fn new(setup: Setup) -> Result<TestMachine> {
        let image = setup.image.clone().map_or_else(shipped_image, Ok)?;
        let folder = tempfile::Builder::new()
            .prefix("larder-test.")
            .tempdir_in(disks_folder())
            .with_context(|| format!("cannot make a folder in {}", disks_folder().display()))?;
        let access = Access::prepare(&folder.path().join("access"), true)?;
        let disk = folder.path().join("disk.raw");
        let recorder = if setup.recorded {
            let size = setup.disk_size.max(std::fs::metadata(&image)?.len());
            Some(Recorder::start(&image, size, folder.path())?)
        } else {
            sparse_copy(&image, &disk)?;
            let file = std::fs::OpenOptions::new().write(true).open(&disk)?;
            file.set_len(setup.disk_size.max(file.metadata()?.len()))?;
            None
        };
        Ok(TestMachine {
            setup,
            access,
            disk,
            recorder,
            on: None,
            boots: 0,
            consoles: Vec::new(),
            failures: Vec::new(),
            folder,
        })
    }

    /// Folder for the test's own files; it goes with the machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// File of the first disk. Change it only while the power is off.
    pub fn disk(&self) -> &Path {
        self.recorder.as_ref().map_or(&self.disk, Recorder::current)
    }

    /// The recorder below the first disk.
    ///
    /// # Panics
    /// If the setup did not ask for one.
    #[expect(clippy::expect_used, reason = "a mistake in the test itself")]
    pub fn recorder(&self) -> &Recorder {
        self.recorder
            .as_ref()
            .expect("Setup::recorded was not called")
    }

    /// Key and token of the machine.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Changes what the next [`TestMachine::power_on`] boots.
    pub fn change(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
    }

    /// Switches the power on. Does not wait.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(self.on.is_none(), "the machine is on");
        let running = self.describe().start()?;
        let guest = Guest::new(&self.access, &running)?;
        // Short: a socket's path may have 107 bytes.
        let ssh = Ssh::new(guest.clone(), running.folder().join("ssh"));
        self.boots += 1;
        let accel = running.accel().accel;
        self.say(&format!("boot {} ({accel})", self.boots));
        self.on = Some(On {
            ssh,
            guest,
            running,
            booted: Instant::now(),
            cpu_before: 0.0,
            resets: 0,
        });
        Ok(())
    }

    /// The machine as the setup has it.
    fn describe(&self) -> Machine {
        let setup = &self.setup;
        let disk = match &self.recorder {
            Some(recorder) => recorder.disk(),
            None => Disk::file(&self.disk).no_flush(),
        };
        let mut machine = Machine::new(&setup.name)
            .memory_mib(setup.memory_mib)
            .firmware(Firmware::Ovmf {
                vars: Some(self.folder.path().join("uefi-variables.fd")),
            })
            .disk(disk.on(setup.bus).block_size(setup.block_size))
            .nic(Nic::user(&setup.guest_ports));
        let key = ("larder.ssh-key", Some(self.access.public_key()));
        let token = (
            "larder.cache-token",
            setup.token.then_some(self.access.token()),
        );
        let host = ("larder.host", setup.host.as_deref());
        for (name, value) in [key, token, host] {
            let Some(value) = value else { continue };
            machine = machine.credential(match setup.way {
                Way::Smbios => Credential::smbios(name, value),
                Way::FwCfg => Credential::fw_cfg(name, value),
            });
        }
        setup
            .tweaks
            .iter()
            .fold(machine, |machine, tweak| tweak(machine))
    }

    /// Switches on and waits for `/up`.
    pub fn boot(&mut self) -> Result<()> {
        self.power_on()?;
        self.wait_up()
    }

    /// Waits until `/up` answers 200 over HTTPS.
    pub fn wait_up(&mut self) -> Result<()> {
        let patience = self.patience();
        let on = self.on()?;
        let mut probe = on.guest.up_probe();
        let mut broken = None;
        on.running.wait_for(
            "/up over HTTPS",
            patience,
            Duration::from_millis(50),
            || match probe.answered() {
                Ok(answered) => Ok(answered.then_some(())),
                Err(error) => {
                    broken = Some(error);
                    Ok(Some(()))
                }
            },
        )?;
        if let Some(error) = broken {
            return Err(error);
        }
        let cpu = on.running.cpu_seconds() - on.cpu_before;
        let wall = on.booted.elapsed().as_secs_f64();
        drop(probe);
        self.say(&format!(
            "boot {}: /up after {cpu:.1} CPU s, {wall:.0} s",
            self.boots
        ));
        Ok(())
    }

    /// Cuts the power: QEMU is killed. What the guest wrote is on its disk, flushed or not; for
    /// less, ask the recorder.
    pub fn power_cut(&mut self) -> Result<()> {
        let on = self.on.take().context("the machine is off")?;
        on.running.kill();
        self.note_end(&on);
        Ok(())
    }

    /// Presses the reset button.
    pub fn hard_reset(&mut self) -> Result<()> {
        self.on()?.running.reset()?;
        self.begins_anew()
    }

    /// Waits until the machine resets by itself: reboot, panic, watchdog.
    pub fn wait_reset(&mut self) -> Result<()> {
        let patience = self.patience();
        let on = self.on()?;
        let (running, known) = (&on.running, on.resets);
        running.wait_for("a reset", patience, ASK, || {
            // Those of `hard_reset` are not the guest's.
            let reset = |event: &&vm::Event| event.name == "RESET" && event.data["guest"] == true;
            let resets = running.events()?.iter().filter(reset).count();
            Ok((resets > known).then_some(()))
        })?;
        self.on_mut()?.resets += 1;
        self.begins_anew()
    }

    /// Asks the guest to reboot, and waits until it does.
    pub fn reboot(&mut self) -> Result<()> {
        self.succeed("true")?;
        // The connection is often cut before the answer has come; whether the machine reboots is seen
        // below.
        let _ = self.ssh("sudo systemctl --no-block reboot");
        self.wait_reset()
    }

    /// Presses the power button and waits for the end.
    pub fn shut_down(&mut self) -> Result<()> {
        let patience = self.patience();
        let running = &self.on()?.running;
        running.power_button()?;
        let ended = running.wait_for("the end", patience, ASK, || {
            Ok(running.ended().is_some().then_some(()))
        });
        let on = self.on.take().context("the machine is off")?;
        self.note_end(&on);
        Ok(ended?)
    }

    /// After a reset: same QEMU, new boot.
    fn begins_anew(&mut self) -> Result<()> {
        self.boots += 1;
        let boots = self.boots;
        let on = self.on_mut()?;
        on.cpu_before = on.running.cpu_seconds();
        on.booted = Instant::now();
        on.ssh = Ssh::new(
            on.guest.clone(),
            on.running.folder().join(format!("ssh{boots}")),
        );
        on.running.skip_console()?;
        self.say(&format!("boot {boots}, after a reset"));
        Ok(())
    }

    fn note_end(&mut self, on: &On) {
        let console = on
            .running
            .console_text()
            .unwrap_or_else(|error| error.to_string());
        self.consoles.push(console);
        self.say(&format!("off, after {:.1} CPU s", on.running.cpu_seconds()));
    }

    /// QEMU's side of the machine.
    pub fn running(&self) -> Result<&Running> {
        Ok(&self.on()?.running)
    }

    /// The guest's side: its forwarded ports.
    pub fn guest(&self) -> Result<&Guest> {
        Ok(&self.on()?.guest)
    }

    /// Waits for one of `patterns` on the console of the present boot.
    pub fn wait_console(&self, patterns: &[&str]) -> Result<Found> {
        Ok(self.on()?.running.wait_console(patterns, self.patience())?)
    }

    /// Everything on the console since the power was switched on.
    pub fn console(&self) -> Result<String> {
        Ok(self.on()?.running.console_text()?)
    }

    /// Runs a command in the guest, as user `larder`; waits for SSH first.
    pub fn ssh(&mut self, shell: &str) -> Result<Output> {
        let patience = self.patience();
        let on = self.on_mut()?;
        let On { ssh, running, .. } = on;
        let mut broken = None;
        running.wait_for("SSH", patience, Duration::from_millis(100), || {
            match ssh.connected() {
                Ok(connected) => Ok(connected.then_some(())),
                Err(error) => {
                    broken = Some(error);
                    Ok(Some(()))
                }
            }
        })?;
        match broken {
            Some(error) => Err(error),
            None => on.ssh.run(shell),
        }
    }

    /// Runs a command that must succeed, and gives what it prints.
    pub fn succeed(&mut self, shell: &str) -> Result<String> {
        let output = self.ssh(shell)?;
        if !output.status.success() {
            bail!("`{shell}` failed ({}): {}", output.status, both(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must fail, and gives what it prints.
    pub fn fail(&mut self, shell: &str) -> Result<String> {
        let output = self.ssh(shell)?;
        ensure!(
            !output.status.success(),
            "`{shell}` succeeded: {}",
            both(&output)
        );
        Ok(both(&output))
    }

    /// Runs a command until it succeeds, and gives what it prints then.
    pub fn wait_until_succeeds(&mut self, shell: &str) -> Result<String> {
        let started = Instant::now();
        let patience = self.patience();
        loop {
            let output = self.ssh(shell)?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let cpu = self.on()?.running.cpu_seconds();
            ensure!(
                started.elapsed() < patience.quiet && cpu < patience.cpu_seconds,
                "`{shell}` still fails after {:.0} s: {}",
                started.elapsed().as_secs_f64(),
                both(&output)
            );
            std::thread::sleep(ASK);
        }
    }

    /// Waits until a unit is active; gives up at once when it has failed.
    pub fn wait_for_unit(&mut self, unit: &str) -> Result<()> {
        let shell =
            format!("s=$(systemctl is-active {unit}); test $s = active -o $s = failed && echo $s");
        let state = self.wait_until_succeeds(&shell)?;
        ensure!(state.trim() == "active", "unit {unit} is {}", state.trim());
        Ok(())
    }

    /// Waits until something in the guest listens on a TCP port.
    pub fn wait_for_open_port(&mut self, port: u16) -> Result<()> {
        self.wait_until_succeeds(&format!("ss -Hltn 'sport = :{port}' | grep -q ."))
            .map(drop)
    }

    /// Puts an artifact; gives the status.
    pub fn put(&self, id: &str, content: &[u8]) -> Result<u16> {
        let body = self.folder.path().join("put");
        std::fs::write(&body, content)?;
        let mut curl = self.guest()?.curl()?;
        curl.arg("-H")
            .arg(format!("@{}", self.access.header_file().display()));
        curl.args([
            "-H",
            "Content-Type: application/octet-stream",
            "-o",
            "/dev/null",
        ]);
        curl.args(["-w", "%{http_code}", "--data-binary"])
            .arg(format!("@{}", body.display()));
        status(&curl.arg(self.guest()?.artifact_url(id)).output()?)
    }

    /// Gets an artifact; gives status and body.
    pub fn get(&self, id: &str) -> Result<(u16, Vec<u8>)> {
        let mut curl = self.guest()?.curl()?;
        curl.arg("-H")
            .arg(format!("@{}", self.access.header_file().display()));
        self.fetch(curl, &self.guest()?.artifact_url(id))
    }

    /// Gets any address without a token; gives status and body.
    pub fn http(&self, url: &str) -> Result<(u16, Vec<u8>)> {
        self.fetch(self.guest()?.curl()?, url)
    }

    fn fetch(&self, mut curl: std::process::Command, url: &str) -> Result<(u16, Vec<u8>)> {
        let body = self.folder.path().join("got");
        let _ = std::fs::remove_file(&body);
        curl.arg("-o")
            .arg(&body)
            .args(["-w", "%{http_code}"])
            .arg(url);
        let status = status(&curl.output()?)?;
        // An empty body makes no file.
        Ok((status, std::fs::read(&body).unwrap_or_default()))
    }

    /// One property among several of a boot: a failure is noted, and the test goes on.
    pub fn check(&mut self, what: &str, check: impl FnOnce(&mut TestMachine) -> Result<()>) {
        match check(self) {
            Ok(()) => self.say(&format!("  ok      {what}")),
            Err(error) => {
                self.say(&format!("  FAILED  {what}: {error:#}"));
                self.failures.push(format!("{what}: {error:#}"));
            }
        }
    }

    pub(crate) fn take_failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }

    /// The consoles of all starts, one after the other.
    pub(crate) fn all_consoles(&self) -> String {
        let mut all = self.consoles.concat();
        if let Some(on) = &self.on {
            all.push_str(
                &on.running
                    .console_text()
                    .unwrap_or_else(|error| error.to_string()),
            );
        }
        all
    }

    /// Leaves the console in `build/tests`, for whoever looks into a failure later.
    pub(crate) fn keep_console(&self, console: &str) {
        let folder = source_tree().join("build/tests");
        // Nothing depends on it.
        let _ = std::fs::create_dir_all(&folder);
        let _ = std::fs::write(folder.join(format!("{}.console", self.setup.name)), console);
    }

    /// The journal of the present boot, if the guest can still be asked.
    pub(crate) fn journal(&mut self) -> Option<String> {
        let brief = Patience {
            quiet: Duration::from_secs(30),
            ..self.patience()
        };
        self.setup.patience = brief;
        if self.on.as_ref()?.running.ended().is_some() {
            return None;
        }
        let shell = "systemctl --failed --no-pager --no-legend; \
                     sudo journalctl -b --no-pager -o short-monotonic -n 300";
        self.ssh(shell).ok().map(|output| both(&output))
    }

    fn on(&self) -> Result<&On> {
        self.on
            .as_ref()
            .ok_or_else(|| anyhow!("the machine is off"))
    }

    fn on_mut(&mut self) -> Result<&mut On> {
        self.on
            .as_mut()
            .ok_or_else(|| anyhow!("the machine is off"))
    }

    fn patience(&self) -> Patience {
        self.setup.patience
    }

    fn say(&self, text: &str) {
        say(&format!("[{}] {text}", self.setup.name));
    }
}

/// The status that curl was told to print.
fn status(output: &Output) -> Result<u16> {
    if !output.status.success() {
        bail!(
            "curl failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .context("curl printed no status")
}

fn both(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}").trim().to_owned()
}
