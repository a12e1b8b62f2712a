//! Boots of the image that ships: what a good one starts, shows and serves, what stays from one to
//! the next, and what comes of those that never get healthy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Setup, TestMachine, scenario};
use vm::{Credential, Patience};

/// All that a boot starts, logins aside. What is new here has a reason to run on every machine.
const UNITS: &str = "\
-.mount boot.mount cas.mount dbus-broker.service dbus.socket dev-zram0.swap etc-machine\\x2did.mount \
fstrim.timer larder-cache-control.socket larder-cache-http.socket larder-cache-https.socket larder-cache-metrics.socket \
larder-cache.service larder-cas.service larder-console.service larder-esp.service \
larder-health.service larder-hostkey.service larder-identity.service larder-refresh.socket \
larder-secrets.service larder-secrets.socket larder-shipper.service modprobe@efi_pstore.service \
nftables.service ssh.service systemd-journal-flush.service \
systemd-journald-dev-log.socket systemd-journald-varlink@larder-access.socket \
systemd-journald.service systemd-journald.socket systemd-journald@larder-access.service \
systemd-journald@larder-access.socket \
systemd-logind.service systemd-networkd.service \
systemd-networkd.socket systemd-random-seed.service systemd-resolved.service \
systemd-sysctl.service systemd-timesyncd.service systemd-tmpfiles-clean.timer \
systemd-tmpfiles-setup-dev-early.service \
systemd-tmpfiles-setup.service systemd-udev-trigger.service systemd-udevd-control.socket \
systemd-udevd-kernel.socket systemd-udevd.service systemd-user-sessions.service \
systemd-zram-setup@zram0.service tmp.mount var.mount";

/// Several boots of one QEMU.
const LONG: Patience = Patience {
    quiet: std::time::Duration::from_secs(240),
    cpu_seconds: 1200.0,
};

/// What stays as long as the state partition does.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    machine_id: String,
    host_key: String,
}

impl Own {
    fn of(machine: &mut TestMachine) -> Result<Own> {
        Ok(Own {
            machine_id: machine.succeed("cat /etc/machine-id")?,
            host_key: machine.succeed("sudo cat /var/lib/larder/ssh/ssh_host_ed25519_key.pub")?,
        })
    }
}

#[test]
fn five_good_boots() {
    let setup = Setup::new("five_good_boots").forward(9464).patience(LONG);
    scenario(setup, |machine| {
        machine.boot()?;
        starts_what_it_should(machine);
        serves(machine);
        shows_itself(machine);
        entry_is_blessed(machine);
        let own = Own::of(machine)?;
        let boot_id = machine.succeed("cat /proc/sys/kernel/random/boot_id")?;

        let artifact = vec![b'x'; 300_000];
        machine.check("an artifact is taken", |machine| {
            let status = machine.put("kept", &artifact)?;
            ensure!(status < 300, "PUT: {status}");
            Ok(())
        });
        // The property is about these two seconds: who has the answer for so long can rely on it.
        machine.succeed("sleep 2")?;
        machine.hard_reset()?;
        machine.wait_up()?;
        machine.check("the artifact has survived the reset", |machine| {
            let (status, body) = machine.get("kept")?;
            ensure!(
                status == 200 && body == artifact,
                "GET: {status}, {} bytes",
                body.len()
            );
            Ok(())
        });
        machine.check("the second boot is no first boot", |machine| {
            machine.succeed("test ! -e /run/systemd/first-boot")?;
            machine.succeed("systemd-analyze condition ConditionFirstBoot=no")?;
            let state = machine.json("/run/larder/boot.json")?;
            ensure!(state["state_status"] == "ok", "{state}");
            let now = machine.succeed("cat /proc/sys/kernel/random/boot_id")?;
            ensure!(now != boot_id, "it has not booted");
            Ok(())
        });
        stays(machine, &own);
        entry_is_blessed(machine);
        for boot in 3..=5 {
            let before = machine.succeed("cat /proc/sys/kernel/random/boot_id")?;
            let before = before.trim().replace('-', "");
            machine.reboot()?;
            machine.wait_up()?;
            stays(machine, &own);
            entry_is_blessed(machine);
            if boot == 3 {
                machine.check("the journal of the boot before is there", |machine| {
                    let listed = machine.succeed("journalctl --list-boots --no-pager")?;
                    ensure!(listed.contains(&before), "no boot {before} in {listed}");
                    let cache =
                        machine.succeed("journalctl -b -1 -u larder-cache --no-pager -o cat")?;
                    ensure!(!cache.trim().is_empty(), "nothing of the cache service");
                    Ok(())
                });
            }
        }
        machine.shut_down()
    });
}

fn starts_what_it_should(machine: &mut TestMachine) {
    machine.check("multi-user, and no unit has failed", |machine| {
        let state = machine.wait_started()?;
        let failed = machine.failed_units()?;
        ensure!(
            state == "running" && failed.trim().is_empty(),
            "{state}: {failed}"
        );
        machine.wait_for_unit("multi-user.target")
    });
    machine.check("no unit is needless, none is missing", |machine| {
        let started = machine.started_units()?;
        let wanted: Vec<&str> = UNITS.split_ascii_whitespace().collect();
        let new: Vec<_> = started
            .iter()
            .filter(|unit| !wanted.contains(&unit.as_str()))
            .collect();
        let gone: Vec<_> = wanted
            .iter()
            .filter(|unit| !started.iter().any(|s| s == *unit))
            .collect();
        ensure!(
            new.is_empty() && gone.is_empty(),
            "new: {new:?}, missing: {gone:?}"
        );
        Ok(())
    });
    machine.check(
        "the journal has no error of systemd or the kernel",
        |machine| {
            let errors = machine.succeed("sudo journalctl -b -p err --no-pager -o cat")?;
            // The image file has been copied to a larger disk; growing it is larder-cas.service's.
            let known = |line: &&str| !line.starts_with("GPT:");
            let errors: Vec<_> = errors.lines().filter(known).collect();
            ensure!(errors.is_empty(), "{errors:#?}");
            Ok(())
        },
    );
}

fn serves(machine: &mut TestMachine) {
    machine.check("/up over HTTPS and HTTP", |machine| {
        let guest = machine.guest()?;
        for url in [guest.https_url("/up"), guest.http_url("/up")] {
            let (status, body) = machine.http(&url)?;
            let body = String::from_utf8_lossy(&body);
            ensure!(
                status == 200 && body.starts_with("UP! Version: "),
                "{url}: {status} {body}"
            );
        }
        Ok(())
    });
    machine.check("HTTP leads to HTTPS", |machine| {
        let guest = machine.guest()?;
        let mut curl = guest.curl()?;
        curl.args(["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
        curl.args(["-H", "Host: cache.example"])
            .arg(guest.http_url("/a?b=c"));
        let said = String::from_utf8(curl.output()?.stdout)?;
        ensure!(said == "301 https://cache.example/a?b=c", "{said}");
        Ok(())
    });
    machine.check("/metrics on loopback only", |machine| {
        const GET: &str = "GET /metrics HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n";
        let ask = format!("exec 3<>/dev/tcp/127.0.0.1/9464; printf '{GET}' >&3; cat <&3");
        let metrics = machine.succeed(&ask)?;
        ensure!(metrics.contains("\nlarder_build_info{"), "{metrics}");
        let listening = machine.succeed("ss -Hltn 'sport = :9464'")?;
        ensure!(
            listening.lines().count() == 1 && listening.contains("127.0.0.1:9464"),
            "{listening}"
        );
        let guest = machine.guest()?;
        for url in [guest.https_url("/metrics"), guest.http_url("/metrics")] {
            let (status, _) = machine.http(&url)?;
            ensure!(status == 404, "{url}: {status}");
        }
        machine.refuses(9464, b"GET /metrics HTTP/1.0\r\n\r\n")
    });
}

fn shows_itself(machine: &mut TestMachine) {
    machine.check(
        "the console shows which machine it is and how it is",
        |machine| {
            machine.wait_console(&["service    up"])?;
            let version = machine.variables("/usr/lib/os-release")?;
            let version = version
                .get("IMAGE_VERSION")
                .context("no IMAGE_VERSION")?
                .clone();
            let key = machine
                .succeed("sudo ssh-keygen -lf /var/lib/larder/ssh/ssh_host_ed25519_key.pub")?;
            let fingerprint = key
                .split_ascii_whitespace()
                .nth(1)
                .context("no fingerprint")?;
            let console = machine.console()?;
            for text in [
                &format!("Larder {version}  dev.larder.internal"),
                "10.0.2.15",
                fingerprint,
            ] {
                ensure!(console.contains(text), "no {text:?} on the console");
            }
            Ok(())
        },
    );
}

/// The boot was counted as good, and the next one takes the same image.
fn entry_is_blessed(machine: &mut TestMachine) {
    machine.check("the image is blessed, no boot is counted", |machine| {
        machine.wait_for_unit("boot-complete.target")?;
        let images = machine.succeed("sudo ls /boot/EFI/Linux")?;
        let image = images.trim();
        ensure!(
            image.ends_with(".efi") && !image.contains(['+', '\n']),
            "images: {images}"
        );
        let selected = machine.loader_variable("LoaderEntrySelected")?;
        ensure!(
            selected.as_deref() == Some(image),
            "{selected:?} was booted, not {image}"
        );
        let count = machine.variables("/var/lib/larder/boot/attempts")?;
        ensure!(count["boots"] == "0" && count["asked"] == "0", "{count:?}");
        let hurries = machine.succeed("cat /sys/kernel/rcu_expedited")?;
        ensure!(hurries.trim() == "0", "rcu_expedited is {hurries}");
        Ok(())
    });
}

fn stays(machine: &mut TestMachine, own: &Own) {
    machine.check("machine id and host key are the same", |machine| {
        let now = Own::of(machine)?;
        ensure!(now == *own, "{now:?} was {own:?}");
        Ok(())
    });
}

#[test]
fn five_boots_that_never_get_healthy() {
    // Drop-ins by credential (systemd-debug-generator): the service ends at once, and its health is
    // waited for a shorter time.
    let ready = Arc::new(AtomicBool::new(false));
    let gets_ready = Arc::clone(&ready);
    let drop_in = |unit: &str, command: &str| {
        let text = format!("[Service]\nExecStart=\nExecStart={command}\n");
        Credential::smbios(format!("systemd.unit-dropin.{unit}"), text)
    };
    let why = "the service is made to fail";
    let setup = Setup::new("five_boots_that_never_get_healthy")
        .patience(LONG)
        .allow("larder-cache.service", why)
        .allow("larder-health.service", why)
        .allow("boot-complete.target", why)
        .machine(move |machine| {
            if gets_ready.load(Ordering::SeqCst) {
                return machine;
            }
            let health = "/usr/bin/appliance health --deadline 3";
            machine
                .credential(drop_in("larder-cache.service", "/bin/false"))
                .credential(drop_in("larder-health.service", health))
        });
    scenario(setup, |machine| {
        const NO_OTHER: &str = "and there is no other image to boot";
        machine.power_on()?;
        for boot in 1..=5 {
            if boot > 1 {
                machine.hard_reset()?;
            }
            // stage1 speaks before the health unit does.
            let wanted = match boot {
                4 | 5 => &[NO_OTHER, "this boot is not healthy"][..],
                _ => &["this boot is not healthy", NO_OTHER][..],
            };
            let found = machine.wait_console(wanted)?;
            ensure!(found.pattern == 0, "boot {boot}: {}", found.line);
            if boot >= 4 {
                let row = format!("{} boots in a row were not healthy", boot - 1);
                ensure!(found.line.contains(&row), "boot {boot}: {}", found.line);
                machine.wait_console(&["this boot is not healthy"])?;
            }
        }
        machine.check("it can be reached, and says what is wrong", |machine| {
            let state = machine.wait_started()?;
            let failed = machine.failed_units()?;
            ensure!(state == "degraded", "{state}");
            ensure!(failed.contains("larder-health.service"), "{failed}");
            machine.wait_console(&["boot 5 since the last healthy one"])?;
            machine.wait_console(&["service    not up"]).map(drop)
        });
        machine.check(
            "the boot loader has given the image up, and boots it all the same",
            |machine| {
                let images = machine.succeed("sudo ls /boot/EFI/Linux")?;
                ensure!(images.trim().ends_with("+0-5.efi"), "images: {images}");
                let count = machine.variables("/var/lib/larder/boot/attempts")?;
                ensure!(count["boots"] == "5" && count["asked"] == "0", "{count:?}");
                Ok(())
            },
        );
        machine.power_cut()?;
        ready.store(true, Ordering::SeqCst);
        machine.boot()?;
        entry_is_blessed(machine);
        Ok(())
    });
}

#[test]
fn a_machine_without_identity() {
    let setup = Setup::new("a_machine_without_identity").without_host();
    scenario(setup, |machine| {
        machine.boot()?;
        machine.check("the console says so", |machine| {
            machine.wait_console(&["this machine does not know which one it is"])?;
            machine
                .wait_console(&["a machine without identity"])
                .map(drop)
        });
        machine.check("it can be reached, and nothing has failed", |machine| {
            let state = machine.wait_started()?;
            let failed = machine.failed_units()?;
            ensure!(state == "running", "{state}: {failed}");
            let identity = machine.json("/run/larder/identity.json")?;
            ensure!(identity["status"] == "none", "{identity}");
            Ok(())
        });
        machine.check("it serves", |machine| {
            let status = machine.put("nobody", b"artifact")?;
            ensure!(status < 300, "PUT: {status}");
            Ok(())
        });
        machine.shut_down()
    });
}
