//! A token that is sealed to the machine's TPM2 and lies on its ESP.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use imagegen::token::{SealArgs, seal};
use qemu_tests::{TestMachine, scenario};
use vm::{Machine, spawn_tied};

use crate::hunt::Hunter;
use crate::world::{World, asked_with, jwt};
use crate::{LONG, serves, state};

/// A software TPM 2.0; it ends with this value.
struct Tpm(Child);

impl Tpm {
    /// Starts one that keeps what it knows in `folder`, and waits until it listens.
    fn start(folder: &Path) -> Result<Tpm> {
        std::fs::create_dir_all(folder)?;
        let socket = folder.join("socket");
        // The one of a TPM that was killed.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = spawn_tied(command).context("cannot start swtpm (Debian package swtpm)")?;
        let tpm = Tpm(child);
        for _ in 0..600 {
            if socket.exists() {
                return Ok(tpm);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        anyhow::bail!("swtpm makes no socket {}", socket.display())
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // It may have ended with its machine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts the TPM of a folder into a machine; a new process for each start.
fn with_tpm(folder: PathBuf) -> impl Fn(Machine) -> Machine {
    let socket = folder.join("socket").display().to_string();
    move |machine| {
        machine.extra_args([
            "-chardev",
            &format!("socket,id=tpm,path={socket}"),
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
            "-device",
            "tpm-tis,tpmdev=tpm0",
        ])
    }
}

/// `imagegen secrets seal`, as a person runs it.
fn seal_to(machine: &TestMachine, token: &str) -> Result<()> {
    let file = machine.folder().join("token");
    std::fs::write(&file, token)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode)?;
    let options = machine.guest()?.ssh_options().join(" ");
    seal(&SealArgs {
        host: "dev".into(),
        configs: qemu_tests::source_tree().join("configs"),
        address: Some("127.0.0.1".into()),
        ssh: format!("ssh {options}"),
        user: "larder".into(),
        token_command: None,
        token_file: Some(file),
        credential: secrets::manifest::TOKEN.into(),
    })
}

/// A key that signs policies over PCR 11.
fn signing_key(path: &Path) -> Result<()> {
    let status = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-out"])
        .arg(path)
        .args(["-pkeyopt", "rsa_keygen_bits:2048"])
        .status()
        .context("cannot start openssl")?;
    ensure!(status.success(), "openssl genpkey: {status}");
    Ok(())
}

#[test]
fn a_token_sealed_to_what_has_booted() {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let key = folder.path().join("pcr.pem");
    let made = signing_key(&key).and_then(|()| World::empty("pcr", false, Some(&key)));
    let mut world = made.unwrap_or_else(|error| panic!("{error:#}"));
    world.secret = world.rotate();
    let state_of_tpm = folder.path().join("tpm");
    let setup = world.setup("a_token_sealed_to_what_has_booted");
    let setup = setup.patience(LONG).machine(with_tpm(state_of_tpm.clone()));
    let start = || Tpm::start(&state_of_tpm);
    scenario(setup, |machine| {
        let tpm = start()?;
        machine.boot()?;
        let token = world.token();
        machine.check("sealed over SSH, it is used at once", |machine| {
            seal_to(machine, &token)?;
            serves(machine, &world, &world.secret)
        });
        machine.power_cut()?;
        drop(tpm);
        let _tpm = start()?;
        machine.boot()?;
        machine.check("and at the next boot of the signed image", |machine| {
            serves(machine, &world, &world.secret)
        });
        machine.check(
            "after anything else was measured it stays shut",
            |machine| {
                let cred = "/run/larder/credentials.encrypted/larder.secrets-token";
                let open = format!(
                    "sudo systemd-creds decrypt --name=larder.secrets-token {cred} - >/dev/null"
                );
                machine.succeed(&open)?;
                machine.succeed(
                    "sudo /usr/lib/systemd/systemd-pcrextend --bank=sha256 --pcr=11 something-else",
                )?;
                let said = machine.fail(&open)?;
                ensure!(!said.contains(&token), "it shows the token");
                Ok(())
            },
        );
        machine.power_cut()
    });
}

#[test]
fn a_token_sealed_on_the_esp() {
    let world = World::new("tpm").unwrap_or_else(|error| panic!("{error:#}"));
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    let plain = world.setup("a_token_sealed_on_the_esp").patience(LONG);
    let setup = plain.clone().machine(with_tpm(own.clone()));
    scenario(setup, |machine| {
        let tpm = Tpm::start(&own)?;
        machine.boot()?;
        machine.check(
            "without a token it runs, and says what is missing",
            |machine| {
                let (state, message) = state(machine)?;
                ensure!(state == "missing", "{state}");
                ensure!(message.contains("larder.secrets-token"), "{message}");
                let failed = machine.failed_units()?;
                ensure!(failed.trim().is_empty(), "{failed}");
                ensure!(world.requests() == 0, "it asked without a token");
                Ok(())
            },
        );
        machine.check("it has a TPM", |machine| {
            machine
                .succeed("test -c /dev/tpmrm0 && sudo systemd-creds has-tpm2")
                .map(drop)
        });
        let token = world.token();
        machine.check("sealed over SSH, it is used at once", |machine| {
            seal_to(machine, &token)?;
            serves(machine, &world, &world.secret)
        });
        machine.power_cut()?;
        drop(tpm);
        let tpm = Tpm::start(&own)?;
        machine.boot()?;
        machine.check("and at the next boot", |machine| {
            serves(machine, &world, &world.secret)
        });
        let mut hunter = Hunter::new(&[&world.secret, &token])?;
        machine.check("it is nowhere in clear", |machine| {
            hunter.hunt(machine, &world.secret)
        });
        machine.power_cut()?;
        drop(tpm);

        // The disk in another machine.
        machine.change(|_| plain.clone().machine(with_tpm(other.clone())));
        let _tpm = Tpm::start(&other)?;
        world.requests();
        machine.boot()?;
        machine.check("another machine can open nothing", |machine| {
            let (state, message) = state(machine)?;
            ensure!(state == "missing", "{state}: {message}");
            ensure!(world.requests() == 0, "it has asked the provider");
            let answer = asked_with(machine, &jwt(&world.secret))?;
            ensure!(
                answer == 401,
                "a token that is signed with the secret: {answer}"
            );
            Ok(())
        });
        machine.power_cut()
    });
}
