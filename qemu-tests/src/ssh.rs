//! Commands in the guest, all through one SSH connection: without KVM each handshake costs about a
//! CPU second.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use imagegen::run::Guest;

/// An SSH connection that commands share.
#[derive(Debug)]
pub(crate) struct Ssh {
    guest: Guest,
    socket: PathBuf,
    master: Option<Child>,
}

impl Ssh {
    /// None yet; its socket is made as `socket`.
    pub(crate) fn new(guest: Guest, socket: PathBuf) -> Ssh {
        Ssh {
            guest,
            socket,
            master: None,
        }
    }

    /// Whether the connection is there; begins to make it if not. Does not wait.
    pub(crate) fn connected(&mut self) -> Result<bool> {
        if let Some(master) = &mut self.master {
            if master.try_wait()?.is_some() {
                // Refused, or cut: the next call tries anew.
                self.master = None;
                return Ok(false);
            }
            return Ok(self.socket.exists());
        }
        let _ = std::fs::remove_file(&self.socket);
        let mut command = self.guest.ssh()?;
        // A background master (ControlPersist) would hold our pipes open.
        command.args(["-N", "-o", "ControlMaster=yes", "-o", "ControlPersist=no"]);
        command.arg("-o").arg(self.control_path());
        command
            .args(["-o", "ServerAliveInterval=0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.master = Some(vm::spawn_tied(command).context("cannot start ssh")?);
        Ok(false)
    }

    /// Runs a command of the guest's shell and gives all it says.
    pub(crate) fn run(&self, shell: &str) -> Result<Output> {
        let output = self
            .command()?
            .arg(shell)
            .output()
            .context("cannot start ssh")?;
        if output.status.code() == Some(255) {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("SSH is gone while running `{shell}`: {words}");
        }
        Ok(output)
    }

    /// `ssh` through the connection; the command is to be added.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = self.guest.ssh()?;
        // Options behind the host are options all the same, for ssh.
        let mut options = Command::new(command.get_program());
        options
            .args(["-o", "ControlMaster=no", "-o"])
            .arg(self.control_path());
        options.args(command.get_args()).stdin(Stdio::null());
        std::mem::swap(&mut command, &mut options);
        Ok(command)
    }

    fn control_path(&self) -> String {
        format!(
            "ControlPath={}",
            self.socket.display().to_string().replace('%', "%%")
        )
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        if let Some(mut master) = self.master.take() {
            let _ = master.kill();
            let _ = master.wait();
        }
    }
}
