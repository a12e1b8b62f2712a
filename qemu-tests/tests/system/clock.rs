//! A machine whose hardware clock has lost its time; its credentials come by fw_cfg.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Setup, scenario};

#[test]
fn the_year_2000_and_credentials_by_fw_cfg() {
    let setup = Setup::new("the_year_2000_and_credentials_by_fw_cfg")
        .credentials_by_fw_cfg()
        .machine(|machine| machine.rtc("2000-01-01T00:00:00"));
    scenario(setup, |machine| {
        machine.boot()?;
        machine.check("the clock begins at the image's time", |machine| {
            let times = machine.succeed("stat -c %Y /usr/lib/clock-epoch; date +%s")?;
            let mut times = times.lines().map(str::parse::<u64>);
            let (Some(epoch), Some(now)) = (times.next(), times.next()) else {
                anyhow::bail!("no times");
            };
            let (epoch, now) = (epoch?, now?);
            ensure!(epoch > 1_700_000_000, "the image is of {epoch}");
            ensure!(
                (epoch..epoch + 86_400).contains(&now),
                "it is {now}, the image is of {epoch}"
            );
            Ok(())
        });
        machine.check(
            "the certificate is good for a client whose clock is right",
            |machine| {
                let port = machine.running()?.port(443).context("no port")?;
                certificate_is_good(machine.folder(), port)
            },
        );
        machine.check("host, key and token have come by fw_cfg", |machine| {
            let name = machine.succeed("hostname")?;
            ensure!(name.trim() == "dev.larder.internal", "{name}");
            let status = machine.put("fw_cfg", b"artifact")?;
            ensure!(status < 300, "PUT: {status}");
            Ok(())
        });
        machine.check("nothing has failed", |machine| {
            let state = machine.wait_started()?;
            let failed = machine.failed_units()?;
            ensure!(state == "running", "{state}: {failed}");
            Ok(())
        });
        machine.shut_down()
    });
}

/// A TLS handshake that trusts the certificate that is shown, names and times checked.
fn certificate_is_good(folder: &Path, port: u16) -> Result<()> {
    let connect = format!("127.0.0.1:{port}");
    let client = |more: &[&str]| -> Result<String> {
        let mut client = Command::new("openssl");
        client.args([
            "s_client",
            "-connect",
            &connect,
            "-servername",
            "dev.larder.internal",
        ]);
        let output = client.args(more).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let shown = client(&["-showcerts"])?;
    let begin = shown
        .find("-----BEGIN CERTIFICATE")
        .with_context(|| shown.clone())?;
    let end = shown
        .rfind("END CERTIFICATE-----")
        .with_context(|| shown.clone())?;
    let trusted = folder.join("trusted.pem");
    std::fs::write(
        &trusted,
        format!("{}END CERTIFICATE-----\n", &shown[begin..end]),
    )?;
    let trusted = trusted.display().to_string();
    let verified = client(&[
        "-CAfile",
        &trusted,
        "-verify_hostname",
        "dev.larder.internal",
    ])?;
    ensure!(
        verified.contains("Verify return code: 0 (ok)"),
        "{verified}"
    );
    Ok(())
}
