//! What a unit that has been taken over could do, and where a secret lies.

use anyhow::{Context, Result, ensure};
use qemu_tests::TestMachine;

/// Our units and the highest exposure that `systemd-analyze security` may give them. Who mounts
/// cannot have a mount namespace of its own.
const EXPOSURE: &[(&str, f64)] = &[
    ("larder-cache", 1.5),
    ("larder-console", 2.0),
    ("larder-hostkey", 1.5),
    ("larder-identity", 2.5),
    ("larder-health", 3.0),
    ("larder-esp", 4.5),
    ("larder-cas", 5.0),
    ("larder-secrets", 2.0),
    ("larder-shipper", 2.0),
];

/// Where the credential with the token of the cache is, for root.
const TOKEN: &str = "/run/credentials/@system/larder.cache-token";

pub(super) fn hardening(machine: &mut TestMachine) -> Result<()> {
    let units = machine.succeed("ls /usr/lib/systemd/system/ | grep '^larder-.*[.]service$'")?;
    let mut wrong = Vec::new();
    for unit in units.lines() {
        let name = unit.trim_end_matches(".service");
        let Some((_, bound)) = EXPOSURE.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{unit} has no bound in this test"));
            continue;
        };
        let said = machine.succeed(&format!(
            "systemd-analyze security --no-pager {unit} | tail -1"
        ))?;
        let level = said
            .split_once(&format!("{unit}: "))
            .and_then(|(_, rest)| rest.split(' ').next());
        let level: f64 = level
            .with_context(|| said.clone())?
            .parse()
            .with_context(|| said.clone())?;
        if level > *bound {
            wrong.push(format!("{unit}: {level}, at most {bound} is allowed"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

pub(super) fn no_secret(machine: &mut TestMachine) -> Result<()> {
    // grep takes the pattern from the credential itself: no command line has it.
    let processes = format!(
        "sudo sh -c 'grep -slFf {TOKEN} /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep .'"
    );
    machine.fail(&processes)?;
    // The search finds what is there to be found.
    let careless = machine.succeed(&format!(
        "sudo sh -c 'K=$(cat {TOKEN}) sleep 600 >/dev/null 2>&1 </dev/null & echo $!'"
    ))?;
    let careless = careless.trim();
    machine.wait_until_succeeds(&processes)?;
    machine.succeed(&format!("sudo kill {careless}"))?;
    let journal = "journalctl -a -o export --no-pager";
    machine.succeed(&format!("sudo sh -c '{journal} | grep -aq larder-cache'"))?;
    machine.fail(&format!("sudo sh -c '{journal} | grep -aqFf {TOKEN}'"))?;
    let folders = "/var /cas /boot /tmp /run/larder /run/log /run/systemd /dev/shm";
    machine.fail(&format!(
        "sudo sh -c 'grep -rslFf {TOKEN} {folders} | grep .'"
    ))?;
    // Nor does anybody but root read it.
    machine.fail(&format!("cat {TOKEN}"))?;
    machine.fail("sudo -u nobody cat /run/credentials/larder-cache.service/larder.cache-token")?;
    let console = machine.console()?;
    ensure!(
        !console.contains(machine.access().token()),
        "it is on the console"
    );
    Ok(())
}
