//! Networks as hosts' entries ask for them, on a cable with a gateway at its end. The entries are in
//! the sealed root, so these machines boot an image with a fleet file of its own; everything else in
//! it is what ships.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, ensure};
use qemu_tests::lan::{Frame, GATEWAY_MAC, Lan, Payload};
use qemu_tests::{Setup, TestMachine, build_image, scenario, source_tree};
use tempfile::TempDir;
use vm::Nic;

/// Card 0 is the tests' own way in.
const FLEET: &str = r#"
[hosts.static]
environment = "development"
region = "local"
domain = "larder.internal"

[[hosts.static.network.links]]
mac = "52:54:00:12:34:56"

[[hosts.static.network.links]]
mac = "52:54:00:12:34:57"
addresses = ["203.0.113.7/32", "2001:db8::7/64"]
gateway = "172.31.1.1"
gateway_on_link = true
gateway6 = "fe80::1"
dns = ["192.0.2.53"]
mtu = 1400

[hosts.bonded]
environment = "development"
region = "local"
domain = "larder.internal"

[[hosts.bonded.network.links]]
mac = "52:54:00:12:34:56"

[[hosts.bonded.network.links]]
name = "port1"
mac = "52:54:00:12:34:57"

[[hosts.bonded.network.links]]
name = "port2"
mac = "52:54:00:12:34:58"

[[hosts.bonded.network.links]]
name = "bond0"
bond = { mode = "active-backup", links = ["port1", "port2"] }

[[hosts.bonded.network.links]]
name = "vlan7"
vlan = { id = 7, link = "bond0" }
addresses = ["192.0.2.7/24"]
gateway = "192.0.2.1"
"#;

/// The image with the hosts above, built once for all tests of this file.
fn image() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let tree = source_tree();
    let folder = tree.join("build/tests/network");
    let configs = folder.join("configs");
    if configs.exists() {
        std::fs::remove_dir_all(&configs)?;
    }
    std::fs::create_dir_all(&folder)?;
    let copied = Command::new("cp")
        .arg("-a")
        .args([tree.join("configs"), configs.clone()])
        .status()?;
    ensure!(copied.success(), "cannot copy the configuration");
    let fleet = configs.join("fleet.toml");
    let hosts = std::fs::read_to_string(&fleet)?;
    std::fs::write(&fleet, format!("{hosts}{FLEET}"))?;
    build_image(&folder, |build| {
        build.arg("--configs").arg(&configs);
    })
}

/// A cable with `ports` for the cards after the first, and the machine at its end.
fn on_cable(
    name: &str,
    host: &str,
    gateway4: Ipv4Addr,
    gateway6: Ipv6Addr,
    ports: usize,
    body: impl FnOnce(&mut TestMachine, &Lan) -> Result<()>,
) {
    let prepared = || -> Result<(TempDir, Lan, Vec<Nic>, PathBuf)> {
        let image = image()?;
        let folder = tempfile::Builder::new().prefix("lan.").tempdir()?;
        let mut lan = Lan::new(folder.path(), &[gateway4], &[gateway6]);
        let cards = (0..ports).map(|_| lan.port()).collect::<Result<Vec<_>>>()?;
        Ok((folder, lan, cards, image))
    };
    let (_folder, lan, cards, image) =
        prepared().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let setup = Setup::new(name)
        .image(image)
        .host(host)
        .machine(move |machine| {
            cards
                .iter()
                .fold(machine, |machine, card| machine.nic(card.clone()))
        });
    scenario(setup, |machine| body(machine, &lan));
}

/// Name of the card with this MAC address.
fn card(machine: &mut TestMachine, index: usize) -> Result<String> {
    let shell = format!(
        "basename $(dirname $(grep -l '{}' /sys/class/net/e*/address))",
        Nic::mac(index)
    );
    Ok(machine.succeed(&shell)?.trim().to_owned())
}

/// Pings the gateway, which answers; waits for the network to be there.
fn ping(machine: &mut TestMachine, gateway: &str) -> Result<()> {
    machine
        .wait_until_succeeds(&format!("sudo ping -n -c 1 -W 5 {gateway}"))
        .map(drop)
}

/// Whether a frame went to the gateway for which `wanted` holds.
fn went(lan: &Lan, wanted: impl Fn(&Frame) -> bool) -> Result<()> {
    let seen = lan.seen();
    ensure!(
        seen.iter()
            .any(|seen| seen.frame.to == GATEWAY_MAC && wanted(&seen.frame)),
        "no such frame among {:#?}",
        &seen[seen.len().saturating_sub(40)..]
    );
    Ok(())
}

fn running(machine: &mut TestMachine) -> Result<()> {
    let state = machine.wait_started()?;
    let failed = machine.failed_units()?;
    ensure!(state == "running", "{state}: {failed}");
    Ok(())
}

#[test]
fn static_with_gateways_outside_the_network() {
    let gateway4 = Ipv4Addr::new(172, 31, 1, 1);
    let gateway6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let name = "static_with_gateways_outside_the_network";
    on_cable(name, "static", gateway4, gateway6, 1, |machine, lan| {
        machine.boot()?;
        machine.check("nothing has failed", running);
        let card = card(machine, 1)?;
        machine.check(
            "the gateway that is outside the network answers",
            |machine| {
                ping(machine, "172.31.1.1")?;
                let route = machine.succeed("ip route get 198.51.100.9")?;
                let wanted = format!("via 172.31.1.1 dev {card} src 203.0.113.7");
                ensure!(route.contains(&wanted), "{route}");
                Ok(())
            },
        );
        machine.check("what is for elsewhere goes to it", |machine| {
            // Nobody answers from there.
            machine.ssh("sudo ping -n -c 1 -W 1 198.51.100.9")?;
            let (from, to) = (
                Ipv4Addr::new(203, 0, 113, 7),
                Ipv4Addr::new(198, 51, 100, 9),
            );
            went(lan, |frame| {
                matches!(frame.payload, Payload::Ipv4 { source, destination, .. }
                    if source == from && destination == to)
            })
        });
        machine.check(
            "the link-local gateway of IPv6 answers, and gets the rest",
            |machine| {
                ping(machine, &format!("fe80::1%{card}"))?;
                let route = machine.succeed("ip -6 route get 2001:db8:1::9")?;
                ensure!(
                    route.contains(&format!("via fe80::1 dev {card}")),
                    "{route}"
                );
                machine.ssh("sudo ping -n -c 1 -W 1 2001:db8:1::9")?;
                let from: Ipv6Addr = "2001:db8::7".parse()?;
                let to: Ipv6Addr = "2001:db8:1::9".parse()?;
                went(lan, |frame| {
                    matches!(frame.payload, Payload::Ipv6 { source, destination, .. }
                    if source == from && destination == to)
                })
            },
        );
        machine.check("MTU and name servers", |machine| {
            let mtu = machine.succeed(&format!("cat /sys/class/net/{card}/mtu"))?;
            ensure!(mtu.trim() == "1400", "{mtu}");
            let dns = machine.succeed(&format!("resolvectl dns {card}"))?;
            ensure!(dns.trim().ends_with(": 192.0.2.53"), "{dns}");
            Ok(())
        });
        machine.check("the console shows the address", |machine| {
            machine.wait_console(&["203.0.113.7"]).map(drop)
        });
        machine.shut_down()
    });
}

#[test]
fn a_vlan_on_a_bond() {
    let gateway4 = Ipv4Addr::new(192, 0, 2, 1);
    on_cable(
        "a_vlan_on_a_bond",
        "bonded",
        gateway4,
        Ipv6Addr::LOCALHOST,
        2,
        |machine, lan| {
            machine.boot()?;
            machine.check("nothing has failed", running);
            machine.check("the gateway answers on the VLAN", |machine| {
                ping(machine, "192.0.2.1")?;
                let route = machine.succeed("ip route get 198.51.100.9")?;
                ensure!(
                    route.contains("via 192.0.2.1 dev vlan7 src 192.0.2.7"),
                    "{route}"
                );
                went(lan, |frame| {
                    frame.vlan == Some(7) && matches!(frame.payload, Payload::Ipv4 { .. })
                })?;
                let untagged = lan.seen().into_iter().find(|seen| {
                    seen.frame.vlan.is_none() && matches!(seen.frame.payload, Payload::Ipv4 { .. })
                });
                ensure!(untagged.is_none(), "outside the VLAN: {untagged:?}");
                Ok(())
            });
            machine.check("one cable is cut: the other one takes over", |machine| {
                let active = active(machine)?;
                let (cut, other, port) = match active.as_str() {
                    "port1" => (1, "port2", 1),
                    "port2" => (2, "port1", 0),
                    other => anyhow::bail!("{other} is no port of the bond"),
                };
                machine.running()?.set_link(cut, false)?;
                machine.wait_until_succeeds(&format!(
                    "grep -q {other} /sys/class/net/bond0/bonding/active_slave"
                ))?;
                let before = lan.seen().len();
                ping(machine, "192.0.2.1")?;
                let seen = lan.seen();
                let moved = seen[before..].iter().any(|seen| {
                    seen.port == port && matches!(seen.frame.payload, Payload::Ipv4 { .. })
                });
                ensure!(moved, "nothing came by {other}: {:#?}", &seen[before..]);
                Ok(())
            });
            machine.shut_down()
        },
    );
}

fn active(machine: &mut TestMachine) -> Result<String> {
    let active = machine.succeed("cat /sys/class/net/bond0/bonding/active_slave")?;
    Ok(active.trim().to_owned())
}

#[test]
fn dead_cards_beside_the_good_one() {
    let setup = Setup::new("dead_cards_beside_the_good_one")
        .machine(|machine| machine.nic(Nic::NoCarrier).nic(Nic::Silent));
    scenario(setup, |machine| {
        machine.boot()?;
        machine.check("nothing has failed or is waited for", |machine| {
            running(machine)?;
            let jobs = machine.succeed("systemctl list-jobs --no-legend --no-pager")?;
            ensure!(jobs.trim().is_empty(), "{jobs}");
            Ok(())
        });
        machine.check("the cards are dead indeed", |machine| {
            let carrier = |machine: &mut TestMachine, index| -> Result<String> {
                let card = card(machine, index)?;
                let said = machine.succeed(&format!("cat /sys/class/net/{card}/carrier"))?;
                Ok(said.trim().to_owned())
            };
            ensure!(carrier(machine, 1)? == "0", "card 1 has a carrier");
            ensure!(carrier(machine, 2)? == "1", "card 2 has no carrier");
            let silent = card(machine, 2)?;
            let state = machine.succeed(&format!("networkctl list --no-legend {silent}"))?;
            ensure!(state.contains("configuring"), "{state}");
            Ok(())
        });
        machine.check(
            "who waits for the network waits for one card only",
            |machine| {
                // Without --any it would fail, after its 30 s.
                machine.succeed("sudo systemctl start systemd-networkd-wait-online.service")?;
                let result = machine
                    .succeed("systemctl show -P Result systemd-networkd-wait-online.service")?;
                ensure!(result.trim() == "success", "{result}");
                Ok(())
            },
        );
        machine.check("it serves", |machine| {
            let status = machine.put("dead", b"artifact")?;
            ensure!(status < 300, "PUT: {status}");
            Ok(())
        });
        machine.shut_down()
    });
}
