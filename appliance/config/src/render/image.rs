//! The files that every image gets out of `system.toml` and `image.toml`.

use std::fmt::Write as _;

use crate::{Config, Dns, Filesystem, SysctlValue, System, Time, Zram};

use super::firewall;

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// Text.
    pub content: String,
    /// Which part of the configuration it comes from, `system.toml sysctl`.
    pub origin: String,
}

/// Everything that the image gets out of the configuration, sorted by path.
#[must_use]
pub fn image_files(config: &Config) -> Vec<File> {
    let system = &config.system;
    let mut files = vec![
        file("/etc/sysctl.d/90-larder.conf", "sysctl", sysctl(system)),
        file(
            "/etc/systemd/system.conf.d/larder.conf",
            "limits",
            unit_limits(system),
        ),
        file(
            "/etc/security/limits.d/larder.conf",
            "limits",
            login_limits(system),
        ),
        file(
            "/etc/tmpfiles.d/larder-system.conf",
            "tmpfiles",
            tmpfiles(system),
        ),
        file(
            "/etc/nftables.conf",
            "firewall",
            firewall::ruleset(&system.firewall),
        ),
        file(
            "/etc/systemd/timesyncd.conf.d/larder.conf",
            "time",
            time(&system.time),
        ),
        file(
            "/etc/systemd/resolved.conf.d/larder.conf",
            "dns",
            dns(&system.dns),
        ),
        file(
            "/etc/systemd/zram-generator.conf",
            "zram",
            zram(&system.zram),
        ),
        file("/etc/larder/mounts", "filesystems", mounts(system)),
        File {
            mode: 0o440,
            ..file(
                "/etc/sudoers.d/wheel",
                "users",
                "# Nobody has a password: keys get in, the group decides.\n\
                 %wheel ALL=(ALL:ALL) NOPASSWD: ALL\n"
                    .into(),
            )
        },
    ];
    if !config.image.modules.load.is_empty() {
        files.push(File {
            origin: "image.toml modules.load".into(),
            ..file(
                "/etc/modules-load.d/larder.conf",
                "",
                lines(&config.image.modules.load),
            )
        });
    }
    for (name, user) in &system.users {
        if !user.keys.is_empty() {
            let path = format!("/etc/ssh/authorized_keys.d/{name}");
            files.push(file(&path, "users", lines(&user.keys)));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn file(path: &str, table: &str, content: String) -> File {
    File {
        path: path.into(),
        mode: 0o644,
        content,
        origin: format!("system.toml {table}"),
    }
}

fn lines(lines: &[String]) -> String {
    lines
        .iter()
        .fold(String::new(), |text, line| text + line.trim() + "\n")
}

/// sysctl.d(5).
fn sysctl(system: &System) -> String {
    let mut text = String::new();
    for (key, value) in &system.sysctl {
        // Writing to a String cannot fail.
        let _ = match value {
            SysctlValue::Number(number) => writeln!(text, "{key} = {number}"),
            SysctlValue::Text(value) => writeln!(text, "{key} = {value}"),
        };
    }
    text
}

/// systemd-system.conf(5).
fn unit_limits(system: &System) -> String {
    format!("[Manager]\nDefaultLimitNOFILE={}\n", system.limits.nofile)
}

/// limits.conf(5); `*` leaves root out.
fn login_limits(system: &System) -> String {
    let nofile = system.limits.nofile;
    format!("*    - nofile {nofile}\nroot - nofile {nofile}\n")
}

/// tmpfiles.d(5).
fn tmpfiles(system: &System) -> String {
    format!(
        "w /sys/kernel/mm/transparent_hugepage/enabled - - - - {}\n{}",
        system.transparent_hugepage,
        lines(&system.tmpfiles)
    )
}

/// zram-generator.conf(5); sizes in MiB. The file of the package, which this one hides, makes a
/// device.
fn zram(zram: &Zram) -> String {
    if zram.size_mib == 0 {
        return "# No zram.\n".into();
    }
    format!(
        "[zram0]\nzram-size = min(ram * {} / 100, {})\ncompression-algorithm = {}\n",
        zram.memory_percent, zram.size_mib, zram.algorithm
    )
}

/// timesyncd.conf(5). Servers of DHCP come before `FallbackNTP` and after `NTP`.
fn time(time: &Time) -> String {
    let mut text = String::from("[Time]\n");
    if !time.servers.is_empty() {
        let _ = writeln!(text, "NTP={}", time.servers.join(" "));
    }
    let _ = writeln!(text, "FallbackNTP={}", time.fallback.join(" "));
    text
}

/// resolved.conf(5).
fn dns(dns: &Dns) -> String {
    // A server asks no neighbours for names and answers none.
    let mut text = String::from("[Resolve]\nLLMNR=no\nMulticastDNS=no\n");
    if !dns.servers.is_empty() {
        // Before those of any link.
        let _ = writeln!(text, "DNS={}\nDomains=~.", dns.servers.join(" "));
    }
    let _ = writeln!(text, "FallbackDNS={}", dns.fallback.join(" "));
    text
}

/// `/etc/larder/mounts` as `appliance/disk/src/settings.rs` reads it.
fn mounts(system: &System) -> String {
    let mut text = String::new();
    for (name, Filesystem { mount, mkfs }) in &system.filesystems {
        let _ = writeln!(text, "{name}={}", mount.join(","));
        if !mkfs.is_empty() {
            let _ = writeln!(text, "{name}.mkfs={}", mkfs.join(" "));
        }
    }
    text
}
