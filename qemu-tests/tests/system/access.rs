//! Who gets in, and by which port.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use imagegen::run::Access;
use qemu_tests::TestMachine;

pub(super) fn users(machine: &mut TestMachine) {
    machine.check("cache is 990:990, larder 1000 in wheel", |machine| {
        let ids = machine.succeed("id -u cache; id -g cache; id -u larder; id -Gn larder")?;
        ensure!(ids.starts_with("990\n990\n1000\n"), "{ids}");
        ensure!(
            ids.split_ascii_whitespace().any(|group| group == "wheel"),
            "{ids}"
        );
        Ok(())
    });
    machine.check(
        "wheel has sudo without a password, nobody else has any",
        |machine| {
            let root = machine.succeed("sudo -n id -u")?;
            ensure!(root.trim() == "0", "{root}");
            machine.fail("sudo -n -u cache sudo -n id").map(drop)
        },
    );
    machine.check("nobody has a password", |machine| {
        let shadow = machine.succeed("sudo cat /etc/shadow")?;
        for line in shadow.lines() {
            let password = line.split(':').nth(1).context("no shadow file")?;
            ensure!(
                password.starts_with(['*', '!']),
                "{} has a password",
                line.split(':').next().unwrap_or(line)
            );
        }
        Ok(())
    });
}

pub(super) fn logins(machine: &mut TestMachine) {
    machine.check("sshd takes keys only", |machine| {
        let refusal = login(machine, &["-o", "PubkeyAuthentication=no"], "larder")?;
        ensure!(
            refusal.contains("Permission denied (publickey)."),
            "{refusal}"
        );
        Ok(())
    });
    machine.check(
        "another key does not open it, nor the key for root",
        |machine| {
            let refusal = login(machine, &[], "root")?;
            ensure!(
                refusal.contains("Permission denied (publickey)."),
                "root: {refusal}"
            );
            let other = Access::prepare(&machine.folder().join("stranger"), true)?;
            let key = other.key_file().display().to_string();
            // Another key in the place of the right one.
            let mut options = machine.guest()?.ssh_options();
            let at = options
                .iter()
                .position(|option| option == "-i")
                .context("no -i")?;
            options[at + 1] = key;
            let output = ssh()
                .args(options)
                .args(["-o", "BatchMode=yes", "larder@127.0.0.1", "true"])
                .output()?;
            let refusal = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                refusal.contains("Permission denied (publickey)."),
                "stranger: {refusal}"
            );
            Ok(())
        },
    );
}

fn ssh() -> Command {
    let mut ssh = Command::new("ssh");
    ssh.stdin(Stdio::null());
    ssh
}

/// What ssh says of a login that is to fail.
fn login(machine: &TestMachine, options: &[&str], user: &str) -> Result<String> {
    let mut ssh = ssh();
    ssh.args(machine.guest()?.ssh_options()).args(options);
    ssh.args(["-o", "BatchMode=yes", &format!("{user}@127.0.0.1"), "true"]);
    let output = ssh.output()?;
    ensure!(
        !output.status.success(),
        "{user} is logged in with {options:?}"
    );
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(super) fn unlisted_port(machine: &mut TestMachine) -> Result<()> {
    machine.succeed(
        "sudo systemd-run --quiet --unit=listener \
         systemd-socket-activate --accept --inetd -l 0.0.0.0:9999 echo hello",
    )?;
    machine.wait_for_open_port(9999)?;
    let inside = machine.succeed("cat </dev/tcp/127.0.0.1/9999")?;
    ensure!(inside.trim() == "hello", "{inside}");
    machine.refuses(9999, b"")?;
    // The same way in is open where a port is listed.
    let banner = machine.hear(22, b"")?;
    ensure!(
        banner.starts_with(b"SSH-2.0-"),
        "{}",
        String::from_utf8_lossy(&banner)
    );
    machine.succeed("sudo systemctl stop listener").map(drop)
}
