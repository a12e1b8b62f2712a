//! What the configuration becomes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::Write as _;
use std::path::Path;

use config::{Config, Fleet};

fn network(text: &str) -> String {
    let text = format!(
        "domain = \"example.org\"\n[hosts.one]\nenvironment = \"staging\"\nregion = \"eu\"\n{text}"
    );
    let fleet =
        Fleet::parse(Path::new("fleet.toml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
    let mut shown = String::new();
    for (name, content) in config::render::network_files(&fleet.hosts["one"].network) {
        writeln!(shown, "=== {name}\n{content}").unwrap();
    }
    shown
}

#[test]
fn networks() {
    insta::assert_snapshot!("dhcp", network(""));
    insta::assert_snapshot!(
        "static",
        network(
            r#"
[[hosts.one.network.links]]
mac = "52:54:00:12:34:56"
addresses = ["203.0.113.7/32", "2001:db8::7/64"]
gateway = "198.51.100.1"
gateway_on_link = true
gateway6 = "fe80::1"
dns = ["9.9.9.9", "2620:fe::fe"]
mtu = 1400
routes = [{ to = "172.16.16.0/22" }]
"#
        )
    );
    insta::assert_snapshot!(
        "bond and vlan",
        network(
            r#"
[[hosts.one.network.links]]
mac = "52:54:00:00:00:01"
name = "lan0"
[[hosts.one.network.links]]
mac = "52:54:00:00:00:02"
name = "lan1"
[[hosts.one.network.links]]
name = "bond0"
bond = { mode = "802.3ad", links = ["lan0", "lan1"] }
mtu = 9000
[[hosts.one.network.links]]
name = "storage"
vlan = { id = 42, link = "bond0" }
addresses = ["192.0.2.2/24"]
gateway = "192.0.2.1"
routes = [{ to = "10.0.0.0/8", via = "192.0.2.254" }]
[[hosts.one.network.links]]
name = "en*"
dhcp = "ipv4"
"#
        )
    );
    let raw = "[hosts.one.network.files]\n\"10-lan.network\" = \"[Match]\\nName=ens3\\n\"\n";
    assert_eq!(network(raw), "=== 10-lan.network\n[Match]\nName=ens3\n\n");
}

#[test]
fn image_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut config = Config::load(&folder).unwrap_or_else(|errors| panic!("{errors}"));
    config.system.firewall.allow.push(config::Allow {
        protocol: config::Protocol::Udp,
        ports: "9100-9155".into(),
        from: vec![
            "10.0.0.0/8".into(),
            "2001:db8::/32".into(),
            "192.168.0.0/16".into(),
        ],
        why: "\"Erlang\"".into(),
    });
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOVJFV1HrYVhxauT3II8L41GrmZYZRDBd9msAeOxJ/da operator@example";
    let jane = config::User {
        uid: 1001,
        groups: vec!["wheel".into()],
        keys: vec![key.into()],
    };
    config.system.users.insert("jane".into(), jane);
    config.image.modules.load.push("dummy".into());
    config.system.time.servers.push("ntp.example.org".into());
    config.system.dns.servers.push("192.0.2.53".into());
    let mut shown = String::new();
    for file in config::render::image_files(&config) {
        let config::render::File {
            path,
            mode,
            content,
            origin,
        } = file;
        writeln!(shown, "=== {path} {mode:o} ({origin})\n{content}").unwrap();
    }
    insta::assert_snapshot!(shown);
}
