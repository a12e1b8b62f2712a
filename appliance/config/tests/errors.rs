//! What people read when a file is wrong.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use config::{Cache, Config, Fleet, Image, System};
use proptest::prelude::*;

/// Sound files, to be broken; not those of `configs/`, whose lines may move.
fn sound(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// A sound file with replacements.
fn broken(name: &str, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(sound(name), |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from:?}");
        text.replacen(from, to, 1)
    })
}

fn fleet(text: &str) -> String {
    Fleet::parse(Path::new("configs/fleet.toml"), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn form() {
    insta::assert_snapshot!(
        "form",
        fleet(
            r#"
domian = "example.org"
[hosts.one]
environment = "prod"
region = 7
disk.cas = "/dev/sdb"
[hosts.two]
environment = "staging"
[[hosts.two.network.links]]
mac = "52:54:00:12:34:56"
gatway = "203.0.113.1"
mtu = "1500"
dhcp = "ipv5"
vlan = { id = 70000, link = "bond0" }
"#
        )
    );
}

#[test]
fn syntax() {
    let text = "domain = \"example.org\"\n[hosts.one]\nregion = \"eu\nenvironment = staging\n[hosts.two]\n[hosts.two]\n";
    insta::assert_snapshot!("syntax", fleet(text));
    let twice = "domain = \"example.org\"\n\n[hosts.one]\nregion = \"eu\"\nenvironment = \"staging\"\n\n[hosts.one]\nregion = \"us\"\n";
    insta::assert_snapshot!("duplicate host", fleet(twice));
}

#[test]
fn hosts() {
    insta::assert_snapshot!(
        "hosts",
        fleet(
            r#"
domain = "Example"
[hosts.Cache_1]
environment = "production"
region = "eu central"
domain = "example.org"
names = ["two.example.org", "a.example.org", "a.example.org", "http://x"]
disks.cas = "/dev/sdb1"
[hosts.two]
environment = "staging"
region = "eu"
domain = "example.org"
disks.cas = "sdb"
network.links = [{ name = "ens3", addresses = ["203.0.113.7/24", "10.0.0.7/8"] }]
[hosts.three]
environment = "staging"
region = "eu"
domain = "example.org"
network.links = [{ name = "ens3", addresses = ["203.0.113.7/24", "10.0.0.7/8"] }]
"#
        )
    );
}

#[test]
fn network() {
    insta::assert_snapshot!(
        "network",
        fleet(
            r#"
domain = "example.org"
[hosts.one]
environment = "production"
region = "eu"
[[hosts.one.network.links]]
mac = "52:54:00:12:34"
addresses = ["203.0.113.7", "203.0.113.0/24", "300.1.1.1/8"]
[[hosts.one.network.links]]
name = "ens3"
addresses = ["203.0.113.7/32"]
gateway = "198.51.100.1"
gateway6 = "fe80::1"
dns = ["dns.example.org"]
mtu = 9
[[hosts.one.network.links]]
mac = "52:54:00:12:34:57"
name = "eth0"
addresses = ["192.0.2.2/24", "2001:db8::2/64"]
gateway = "192.0.2.1"
gateway6 = "fe80::1%eth0"
mtu = 1000
routes = [{ to = "10.0.0.1/8", via = "192.0.2.1" }, { to = "10.0.0.0/8", via = "fe80::2" }, { to = "0.0.0.0/0", via = "192.0.2.1" }, { to = "10.0.0.0/8", via = "172.16.0.1" }]
[[hosts.one.network.links]]
name = "bond0"
bond = { mode = "active-backups", links = ["ens3", "ens4", "bond0"] }
[[hosts.one.network.links]]
name = "uplink.4095"
vlan = { id = 4095, link = "bond1" }
mtu = 9000
[[hosts.one.network.links]]
[hosts.two]
environment = "production"
region = "eu"
[[hosts.two.network.links]]
name = "ens3"
[hosts.two.network.files]
"lan.conf" = "x"
"10-lan.network" = "[match]"
"#
        )
    );
}

#[test]
fn system() {
    let text = broken(
        "system.toml",
        &[
            ("\"net.core.somaxconn\" = 16384", "somaxconn = 16384"),
            ("\"4096 131072 67108864\"", "\"4096\\n131072\""),
            (
                "transparent_hugepage = \"never\"",
                "transparent_hugepage = \"nevr\"",
            ),
            (
                "\"d /cas 0755 cache cache -\"",
                "\"d cas\", \"y /cas\", \"d /cas rwx\"",
            ),
            ("nofile = 65535", "nofile = 2000000"),
            ("memory_percent = 50", "memory_percent = 0"),
            ("algorithm = \"zstd\"", "algorithm = \"zst\""),
            ("\"commit=30\"", "\"comit=30\""),
            (
                "\"commit=60\"",
                "\"commit=1h\", \"umask=0077\", \"noatime,lazytime\"",
            ),
            ("\"-i\", \"8192\"", "\"-i\", \"8k\", \"-L\", \"cas\""),
            ("[\"umask=0077\"]", "[\"umask=0999\"]"),
            (
                "{ ports = \"22\", why = \"SSH\" }",
                "{ ports = \"ssh\", why = \"\" }",
            ),
            (
                "{ ports = \"443\", why",
                "{ ports = \"400-500\", from = [\"10.0.0.1/8\"], why = \"x\" },\n  { ports = \"443\", why",
            ),
            (
                "[time]",
                "[users.larder]\nuid = 1000\n[users.jane]\nuid = 1001\nkeys = [\"AAAA secret\"]\n[users.joe]\nuid = 1001\ngroups = [\"wheel\", \"wheel\"]\n[users.Jim]\nuid = 80\n[time]",
            ),
            ("zone = \"Etc/UTC\"", "zone = \"Mars/../Olympus\""),
            ("\"0.debian.pool.ntp.org\"", "\"ntp server\""),
            ("\"9.9.9.9\"", "\"dns.quad9.net\""),
        ],
    );
    let errors = System::parse(Path::new("configs/system.toml"), &text).unwrap_err();
    insta::assert_snapshot!("system", errors);
}

#[test]
fn firewall() {
    let allow = "{ ports = \"80\", why = \"HTTP: /up, ACME, redirects\" }";
    let text = broken(
        "system.toml",
        &[(
            allow,
            "{ ports = \"80-600\", why = \"web\" },\n  { ports = \"80\", protocol = \"udp\", why = \"another protocol\" },\n  { ports = \"9000\", from = [\"10.0.0.0/8\"], why = \"inside\" },\n  { ports = \"9000\", from = [\"192.168.0.0/16\"], why = \"other inside\" },\n  { ports = \"8999-9001\", from = [\"10.2.0.0/16\"], why = \"part of it\" }",
        )],
    );
    let errors = System::parse(Path::new("configs/system.toml"), &text).unwrap_err();
    insta::assert_snapshot!("firewall", errors);
}

#[test]
fn image() {
    let text = broken(
        "image.toml",
        &[
            ("id = \"larder\"", "id = \"Larder\""),
            (
                "version = \"0.1.0\"",
                "version = \"2026.11.25+nightly.build\"",
            ),
            ("default = \"6.18-cloud\"", "default = \"6.18-clod\""),
            (
                "\"quiet\",",
                "\"quiet splash\", \"roothash=00\", \"root=/dev/sda1\",",
            ),
            (
                "\"trixie-backports\"]\n# Dep",
                "\"trixie-backports\", \"trixie\"]\n# Dep",
            ),
            ("\"bash\",", "\"bash\", \"bash\", \"dpkg\", \"Open SSH\","),
            ("\"for the scripts of debconf, adduser and ucf\"", "\"\""),
            (
                "[packages.kernels.\"6.18-cloud\"]\nsuites = [\"trixie-backports\"]\nversion = \"6.18\"",
                "[packages.pins]\ncurl = \"trixie-backport\"\n[packages.kernels.\"6.18-cloud\"]\nsuites = [\"bookworm\"]\nversion = \"v6.18\"",
            ),
            (
                "paths = [\"/usr/share/locale/**\"]",
                "paths = [\"usr/share/locale/**\", \"/usr/**\"]",
            ),
            ("\"i6300esb\",", "\"i6300esb.ko\", \"wdat-wdt\","),
            ("  \"dm_verity\",\n  \"ext4\"", "  \"ext4\""),
            ("\"ssh.service\",", "\"ssh\", \"systemd-binfmt.service\","),
        ],
    );
    let errors = Image::parse(Path::new("configs/image.toml"), &text).unwrap_err();
    insta::assert_snapshot!("image", errors);
}

#[test]
fn cache() {
    let text = broken(
        "cache.toml",
        &[
            ("storage = \"/cas\"", "storage = \"/cas/../var\""),
            ("# token_sha256 = \"…\"", "token_sha256 = \"swordfish\""),
            ("26214400", "0"),
            ("drain_seconds = 60", "drain_seconds = 600"),
        ],
    );
    let errors = Cache::parse(Path::new("configs/cache.toml"), &text)
        .unwrap_err()
        .to_string();
    insta::assert_snapshot!("cache", errors);
    let message = errors
        .split("\n\n")
        .find(|text| text.contains("token_sha256:"))
        .unwrap();
    assert!(
        message
            .lines()
            .next()
            .unwrap()
            .ends_with("this is no SHA-256")
    );
}

#[test]
fn all_files_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "image.toml",
        broken("image.toml", &[("id = ", "ident = ")]).as_bytes(),
    );
    write("system.toml", b"[sysctl]\n\xff = 1\n");
    write(
        "cache.toml",
        broken("cache.toml", &[("60", "\"60\"")]).as_bytes(),
    );
    let errors = Config::load(folder.path()).unwrap_err().to_string();
    let errors = errors.replace(&folder.path().display().to_string(), "configs");
    insta::assert_snapshot!("all files", errors);
    for name in ["system.toml", "fleet.toml", "cache.toml", "shipper.toml"] {
        write(name, sound(name).as_bytes());
    }
    write(
        "image.toml",
        broken(
            "image.toml",
            &[
                ("  \"systemd-zram-generator\",\n", ""),
                ("  \"tcp_bbr\",\n", ""),
            ],
        )
        .as_bytes(),
    );
    let errors = Config::load(folder.path()).unwrap_err().to_string();
    let errors = errors.replace(&folder.path().display().to_string(), "configs");
    insta::assert_snapshot!("across files", errors);
}

/// A value that stands where another is expected.
fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "1",
        "-1",
        "\"\"",
        "\"a\"",
        "\"/\"",
        "\"::1/0\"",
        "[]",
        "[[]]",
        "[\"\"]",
        "{}",
        "{ a = 1 }",
        "true",
        "1.5",
        "1979-05-27",
        "\"\\u0000\"",
        "\"é/1\"",
        "\"255.255.255.255/31\"",
        "18446744073709551615",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        config::fuzz(&bytes);
    }

    /// One value of a sound file replaced by something else, or one line dropped or doubled.
    #[test]
    fn no_change_panics(file in 0usize..4, line in any::<prop::sample::Index>(), how in 0..4, value in value()) {
        let text = sound(["image.toml", "system.toml", "fleet.toml", "cache.toml"][file]);
        let mut lines: Vec<String> = text.lines().map(Into::into).collect();
        let at = line.index(lines.len());
        match how {
            0 => { lines.remove(at); }
            1 => lines.insert(at, lines[at].clone()),
            2 => if let Some((key, _)) = lines[at].clone().split_once('=') {
                lines[at] = format!("{key}= {value}");
            },
            _ => lines.insert(at, format!("key{at} = {value}")),
        }
        config::fuzz(lines.join("\n").as_bytes());
    }

    #[test]
    fn no_cut_panics(file in 0usize..4, at in any::<prop::sample::Index>()) {
        let text = sound(["image.toml", "system.toml", "fleet.toml", "cache.toml"][file]);
        config::fuzz(&text.as_bytes()[..at.index(text.len())]);
    }
}
