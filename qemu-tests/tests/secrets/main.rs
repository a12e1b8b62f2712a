//! Secrets in a booted machine: it is given one token, by each of the ways in, and fetches the rest.

mod hunt;
mod tpm;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use qemu_tests::{TestMachine, full_matrix, scenario};
use vm::Patience;

use hunt::Hunter;
use secrets::refresh::{Client, RefreshError, SOCKET};
use world::{World, asked_with, by_fw_cfg, by_smbios, jwt, until_taken};

/// Several boots, and searches of a whole disk.
const LONG: Patience = Patience {
    quiet: std::time::Duration::from_secs(300),
    cpu_seconds: 1500.0,
};

/// What the fetcher says of the secret: its state, and what is wrong.
fn state(machine: &mut TestMachine) -> Result<(String, String)> {
    // It fails if a secret is missing that somebody needs.
    let status = machine.succeed("sudo appliance secrets status --json")?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let secret = &status["secrets"][0];
    let text = |key: &str| secret[key].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("message")))
}

/// It serves with what it has fetched, and with nothing else.
fn serves(machine: &mut TestMachine, world: &World, secret: &str) -> Result<()> {
    until_taken(machine, secret)?;
    let answer = asked_with(machine, &jwt("another secret of the same kind"))?;
    ensure!(answer == 401, "a token that somebody else signed: {answer}");
    let (state, message) = state(machine)?;
    ensure!(state == "fresh" && message.is_empty(), "{state}: {message}");
    ensure!(world.requests() > 0, "nobody has asked the provider");
    Ok(())
}

#[test]
fn a_token_by_smbios() {
    let world = World::new("smbios").unwrap_or_else(|error| panic!("{error:#}"));
    let setup = world.setup("a_token_by_smbios").patience(LONG);
    let setup = setup.machine(by_smbios(world.token()));
    scenario(setup, |machine| {
        machine.boot()?;
        let secret = world.secret.clone();
        machine.check("it fetches, and serves with what it fetched", |machine| {
            serves(machine, &world, &secret)
        });
        machine.check("nothing has failed", |machine| {
            let state = machine.wait_started()?;
            let failed = machine.failed_units()?;
            ensure!(state == "running", "{state}: {failed}");
            Ok(())
        });
        machine.check("nobody else gets it", nobody_else);
        let rotated = world.rotate();
        machine.check("a rotation under load costs no request", |machine| {
            rotation(machine, &secret, &rotated)
        });
        machine.check("metrics and console tell", |machine| {
            let metrics = machine.succeed("sudo appliance shipper scrape | grep larder_secret")?;
            let fresh =
                "larder_secret_state{required=\"false\",secret=\"jwt-secret\",state=\"fresh\"} 1";
            ensure!(metrics.contains(fresh), "{metrics}");
            machine.wait_console(&["secrets    1 fetched"]).map(drop)
        });
        let token = world.token();
        let mut hunter = Hunter::new(&[&secret, &rotated, &token])?;
        machine.check("it is nowhere but in memory", |machine| {
            hunter.hunt(machine, &rotated)
        });

        // The next boot finds nobody to ask.
        world.down(true);
        machine.power_cut()?;
        machine.boot()?;
        machine.check("a boot without the provider", |machine| {
            until_taken(machine, &rotated)?;
            let (state, message) = state(machine)?;
            ensure!(state == "last-known-good", "{state}: {message}");
            machine.wait_console(&["jwt-secret last-known-good"])?;
            let failed = machine.failed_units()?;
            ensure!(failed.trim().is_empty(), "{failed}");
            let metrics = machine.succeed("sudo appliance shipper scrape | grep larder_secret")?;
            ensure!(
                metrics.contains("state=\"last-known-good\"} 1"),
                "{metrics}"
            );
            Ok(())
        });
        machine.check("it is well again when the provider is", |machine| {
            world.down(false);
            machine.succeed("sudo systemctl reload larder-secrets.service")?;
            machine.wait_until_succeeds(
                "sudo appliance secrets status --json | grep -q '\"state\": \"fresh\"'",
            )?;
            Ok(())
        });
        machine.shut_down()
    });
}

/// Another unit, another user, a process of a login.
fn nobody_else(machine: &mut TestMachine) -> Result<()> {
    let load = "LoadCredential=jwt-secret:/run/larder/secrets.sock";
    let said = machine.ssh(&format!(
        "sudo systemd-run --quiet --pipe --wait -p {load} \
         sh -c 'cat $CREDENTIALS_DIRECTORY/jwt-secret | wc -c'"
    ))?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    ensure!(
        said == "0" || said.is_empty(),
        "another unit gets {said} bytes"
    );
    let said = machine.fail("appliance secrets status")?;
    ensure!(said.contains("denied"), "a user who is not root: {said}");
    machine.fail("test -w /run/larder/secrets.sock")?;
    machine.fail("sudo -u nobody cat /run/credentials/larder-cache.service/jwt-secret")?;
    // sshd forwards the socket: whoever asks is in the control group of a login, not of a service.
    let forwarded = machine.folder().join("refresh");
    let mut ssh = machine.guest()?.ssh()?;
    ssh.args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"]);
    ssh.arg(format!("{}:{SOCKET}", forwarded.display()));
    let _ssh = Forwarding(vm::spawn_tied(ssh)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let running = machine.running()?;
    let every = std::time::Duration::from_millis(100);
    running.wait_for("a forwarded socket", LONG, every, || {
        Ok(forwarded.exists().then_some(()))
    })?;
    for name in ["jwt-secret", "larder.secrets-token"] {
        let asked = runtime.block_on(async { Client::connect(&forwarded).await?.get(name).await });
        ensure!(
            matches!(asked, Err(RefreshError::Denied { .. })),
            "a login that asks for {name} is not denied"
        );
    }
    let asked = runtime.block_on(async { Client::connect(&forwarded).await?.status().await });
    ensure!(
        matches!(asked, Err(RefreshError::Denied { .. })),
        "a login is told the status"
    );
    Ok(())
}

/// An ssh that ends with the value.
struct Forwarding(std::process::Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_required_secret_that_is_missing() {
    let world = World::empty("required", true, None).unwrap_or_else(|error| panic!("{error:#}"));
    let setup = world.setup("a_required_secret_that_is_missing");
    let setup = setup.patience(LONG).machine(by_smbios(world.token()));
    let setup = setup.allow("larder-cache.service", "it fails, which is the property");
    let setup = setup.allow("larder-health.service", "the cache does not run");
    let setup = setup.allow("boot-complete.target", "nor is the boot healthy");
    scenario(setup, |machine| {
        machine.power_on()?;
        machine.check("its unit fails, and says why", |machine| {
            machine.wait_until_succeeds(
                "sudo journalctl -q -b _PID=1 -u larder-cache.service | grep -q 243/CREDENTIALS",
            )?;
            machine.wait_console(&["0 of 1 fetched; jwt-secret missing: op://cache/Larder/jwt"])?;
            let said = machine.fail("sudo appliance secrets status")?;
            ensure!(
                said.contains("jwt-secret") && said.contains("missing"),
                "{said}"
            );
            let metrics = machine.succeed("sudo appliance shipper scrape | grep larder_secret")?;
            let missing =
                "larder_secret_state{required=\"true\",secret=\"jwt-secret\",state=\"missing\"} 1";
            ensure!(metrics.contains(missing), "{metrics}");
            Ok(())
        });
        machine.check("what needs nothing secret runs", |machine| {
            for unit in [
                "larder-secrets.service",
                "larder-shipper.service",
                "ssh.service",
            ] {
                machine.wait_for_unit(unit)?;
            }
            Ok(())
        });
        machine.check("its failures do not add up to a limit", |machine| {
            // Twice at least.
            machine.wait_until_succeeds(
                "test $(systemctl show -P NRestarts larder-cache.service) -ge 2",
            )?;
            let said = machine.succeed("systemctl show -P Result larder-cache.service")?;
            ensure!(said.trim() != "start-limit-hit", "{said}");
            ensure!(world.requests() < 60, "it asks too often");
            Ok(())
        });
        let secret = world.rotate();
        machine.check("as soon as it is there, its unit runs", |machine| {
            machine.succeed("sudo systemctl reload larder-secrets.service")?;
            machine.wait_up()?;
            serves(machine, &world, &secret)
        });
        machine.power_cut()
    });
}

/// Requests with another token go on while the secret becomes another.
fn rotation(machine: &mut TestMachine, before: &str, after: &str) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let guest = machine.guest()?.clone();
    let header = machine.access().header_file();
    ensure!(machine.put("load", &[b'x'; 20_000])? < 300, "PUT fails");
    let load = std::thread::spawn({
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        move || -> Result<()> {
            while !stop.load(Ordering::SeqCst) {
                let mut curl = guest.curl()?;
                curl.arg("-H").arg(format!("@{}", header.display()));
                curl.args(["-o", "/dev/null", "-w", "%{http_code} %{size_download}"]);
                let output = curl.arg(guest.artifact_url("load")).output()?;
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                ensure!(
                    said == "200 20000",
                    "request {}: {said} {}",
                    count.load(Ordering::SeqCst),
                    String::from_utf8_lossy(&output.stderr)
                );
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let changed = (|| {
        machine.succeed("sudo systemctl reload larder-secrets.service")?;
        until_taken(machine, after)
    })();
    let before = asked_with(machine, &jwt(before));
    stop.store(true, Ordering::SeqCst);
    let loaded = load
        .join()
        .map_err(|_| anyhow::anyhow!("the load panicked"))?;
    changed?;
    loaded.context("under load")?;
    ensure!(before? == 401, "the old secret is still good");
    let count = count.load(Ordering::SeqCst);
    ensure!(count >= 3, "{count} requests are no load");
    Ok(())
}

#[test]
fn a_wrong_token_then_a_right_one_by_fw_cfg() {
    let world = World::new("fw_cfg").unwrap_or_else(|error| panic!("{error:#}"));
    let wrong = world.wrong_token();
    let setup = world.setup("a_wrong_token_then_a_right_one_by_fw_cfg");
    let plain = setup.clone();
    let setup = setup.patience(LONG).machine(by_fw_cfg(wrong));
    scenario(setup, |machine| {
        machine.boot()?;
        machine.check("it is reachable and says what is wrong", |machine| {
            machine.wait_console(&["0 of 1 fetched; jwt-secret missing: op://cache/Larder/jwt"])?;
            let (state, message) = state(machine)?;
            ensure!(state == "missing", "{state}");
            ensure!(message.contains("unauthorized"), "{message}");
            let failed = machine.failed_units()?;
            ensure!(failed.trim().is_empty(), "{failed}");
            ensure!(machine.put("without", b"secrets")? < 300, "PUT fails");
            Ok(())
        });
        machine.check("in 90 s it asks as often as it may", |machine| {
            // The property is about this time.
            machine.succeed("while [ $(cut -d. -f1 /proc/uptime) -lt 90 ]; do sleep 1; done")?;
            let requests = world.requests();
            ensure!((1..=8).contains(&requests), "{requests} requests");
            Ok(())
        });
        machine.power_cut()?;
        let token = world.token();
        machine.change(|_| {
            plain
                .clone()
                .patience(LONG)
                .machine(by_fw_cfg(token.clone()))
        });
        machine.boot()?;
        machine.check("it fetches, and serves with what it fetched", |machine| {
            serves(machine, &world, &world.secret)
        });
        if full_matrix("the hunt for a secret whose token came by fw_cfg") {
            let mut hunter = Hunter::new(&[&world.secret, &token])?;
            machine.check("it is nowhere but in memory", |machine| {
                hunter.hunt(machine, &world.secret)
            });
        }
        machine.shut_down()
    });
}
