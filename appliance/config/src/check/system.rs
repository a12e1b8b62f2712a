//! `system.toml`.

use std::collections::BTreeMap;

use crate::load::{File, Report, place};
use crate::ssh::PublicKey;
use crate::{SysctlValue, System, Zram};

use super::{filesystem, firewall, shapes};

/// Accounts that every image has.
const TAKEN: &[&str] = &[
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "www-data",
    "backup",
    "list",
    "irc",
    "_apt",
    "nobody",
    "sshd",
    "messagebus",
    "cache",
    "larder",
    "wheel",
    "sudo",
    "users",
];
/// Kinds of lines of tmpfiles.d(5), without their modifiers.
const TMPFILES: &str = "fwdDevqQpLcbCxXrRzZtThHaA";
/// Compression algorithms of zram.
const ALGORITHMS: &[&str] = &["842", "deflate", "lz4", "lz4hc", "lzo", "lzo-rle", "zstd"];
/// What the kernel allows at most unless `fs.nr_open` says more.
const NR_OPEN: u64 = 1_048_576;

impl File for System {
    const NAME: &'static str = "system.toml";

    fn check(&self, report: &mut Report) {
        sysctl(&self.sysctl, report);
        limits(self, report);
        let pages = ["always", "madvise", "never"];
        if !pages.contains(&self.transparent_hugepage.as_str()) {
            report.wrong(
                place!["transparent_hugepage"],
                format!("{:?} is not known", self.transparent_hugepage),
                crate::words::suggest(&self.transparent_hugepage, &pages, "it is one of"),
            );
        }
        for (number, line) in self.tmpfiles.iter().enumerate() {
            if let Err(right) = tmpfiles(line) {
                report.wrong(
                    place!["tmpfiles", number],
                    "this is no line of tmpfiles.d",
                    right,
                );
            }
        }
        zram(&self.zram, report);
        for (name, options) in &self.filesystems {
            filesystem::check(name, options, report);
        }
        firewall::check(&self.firewall, report);
        users(self, report);
        if !zone(&self.time.zone) {
            report.wrong(
                place!["time", "zone"],
                format!("{:?} is no time zone", self.time.zone),
                "a name of the tz database, as in \"Etc/UTC\" or \"Europe/Berlin\"",
            );
        }
        let time = [
            ("servers", &self.time.servers),
            ("fallback", &self.time.fallback),
        ];
        for (key, list) in time {
            for (number, server) in list.iter().enumerate() {
                if let Err(right) = shapes::server(server) {
                    report.wrong(
                        place!["time", key, number],
                        format!("{server:?} is no server"),
                        right,
                    );
                }
            }
        }
        for (key, list) in [
            ("servers", &self.dns.servers),
            ("fallback", &self.dns.fallback),
        ] {
            for (number, server) in list.iter().enumerate() {
                if let Err(right) = dns_server(server) {
                    report.wrong(
                        place!["dns", key, number],
                        format!("{server:?} is no DNS server"),
                        right,
                    );
                }
            }
        }
    }
}

fn sysctl(values: &BTreeMap<String, SysctlValue>, report: &mut Report) {
    for (key, value) in values {
        let parts = key.split('.').all(|part| shapes::word(part, "-_/*"));
        if !parts || !key.contains('.') {
            report.wrong(
                place!["sysctl", key],
                "this is no kernel parameter",
                "its name in quotes: \"net.core.somaxconn\" = 16384",
            );
        }
        if let SysctlValue::Text(text) = value
            && let Err(right) = shapes::line(text)
        {
            report.wrong(place!["sysctl", key], "this value cannot be written", right);
        }
    }
}

fn limits(system: &System, report: &mut Report) {
    let most = match system.sysctl.get("fs.nr_open") {
        Some(SysctlValue::Number(number)) => u64::try_from(*number).unwrap_or(NR_OPEN),
        _ => NR_OPEN,
    };
    let nofile = system.limits.nofile;
    if !(1024..=most).contains(&nofile) {
        report.wrong(
            place!["limits", "nofile"],
            format!("{nofile} is out of range"),
            format!("1024 to {most} (fs.nr_open): with more nobody could log in"),
        );
    }
}

fn tmpfiles(line: &str) -> Result<(), &'static str> {
    shapes::line(line)?;
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let known = kind.chars().next().is_some_and(|c| TMPFILES.contains(c));
    if !known || !kind.chars().skip(1).all(|c| "+!-=~^$?".contains(c)) {
        return Err("a type first, as in \"d /cas 0755 cache cache -\"");
    }
    if !words.next().is_some_and(|path| path.starts_with('/')) {
        return Err("an absolute path after the type, as in \"d /cas 0755 cache cache -\"");
    }
    let mode = words.next().unwrap_or("-").trim_start_matches(['~', ':']);
    let octal = mode.len() <= 5 && u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777);
    if mode == "-" || octal {
        Ok(())
    } else {
        Err("a mode or `-` after the path, as in \"d /cas 0755 cache cache -\"")
    }
}

fn zram(zram: &Zram, report: &mut Report) {
    if zram.size_mib > 1 << 24 {
        report.wrong(
            place!["zram", "size_mib"],
            "this is more than any memory",
            "MiB; 0 means none",
        );
    }
    if !(1..=200).contains(&zram.memory_percent) {
        report.wrong(
            place!["zram", "memory_percent"],
            format!("{} is out of range", zram.memory_percent),
            "1 to 200; size_mib = 0 means no zram",
        );
    }
    if !ALGORITHMS.contains(&zram.algorithm.as_str()) {
        report.wrong(
            place!["zram", "algorithm"],
            format!("{:?} is not known", zram.algorithm),
            crate::words::suggest(&zram.algorithm, ALGORITHMS, "it is one of"),
        );
    }
}

fn users(system: &System, report: &mut Report) {
    let mut ids: BTreeMap<u32, &str> = BTreeMap::new();
    for (name, user) in &system.users {
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if !begins || !name.chars().all(plain) || name.len() > 32 {
            report.wrong(
                place!["users", name],
                "this is no user name",
                "at most 32 lower-case letters, digits, `-` and `_`, beginning with a letter",
            );
        } else if TAKEN.contains(&name.as_str()) || name.starts_with("systemd-") {
            report.wrong(
                place!["users", name],
                format!("the system has an account {name:?} of its own"),
                "another name",
            );
        }
        let at = || place!["users", name, "uid"];
        if user.uid == 1000 {
            report.wrong(at(), "1000 is the uid of user `larder`", "1001 to 59999");
        } else if !(1001..=59999).contains(&user.uid) {
            report.wrong(
                at(),
                format!("{} is out of range", user.uid),
                "1001 to 59999",
            );
        } else if let Some(other) = ids.insert(user.uid, name) {
            report.wrong(
                at(),
                format!("{} is the uid of {other:?}, too", user.uid),
                "one of their own for each",
            );
        }
        for (number, group) in user.groups.iter().enumerate() {
            let at = place!["users", name, "groups", number];
            if !shapes::word(group, "-_") {
                report.wrong(
                    at,
                    format!("{group:?} is no group"),
                    "a name, as in \"wheel\"",
                );
            } else if user.groups[..number].contains(group) {
                report.wrong(at, format!("{group:?} is there twice"), "each group once");
            }
        }
        for (number, key) in user.keys.iter().enumerate() {
            if let Err(reason) = PublicKey::parse(key) {
                report.wrong(
                    place!["users", name, "keys", number],
                    format!("this is no public SSH key: {reason}"),
                    "the line of a .pub file, as in \"ssh-ed25519 AAAA… jane@example.org\"",
                );
            }
        }
    }
}

fn zone(zone: &str) -> bool {
    zone.split('/').all(|part| shapes::word(part, "-_+")) && zone.len() < 64
}

/// `ADDRESS[:PORT][%INTERFACE][#NAME]` of resolved.conf(5), without port and interface: servers of
/// all machines are on no interface of one.
fn dns_server(text: &str) -> Result<(), &'static str> {
    let (address, name) = text.split_once('#').unwrap_or((text, "name"));
    let named = name.split('.').all(|part| shapes::label(part).is_ok());
    if address.parse::<std::net::IpAddr>().is_ok() && named {
        Ok(())
    } else {
        Err("an IP address, as in \"9.9.9.9\"; its name for TLS after a `#`")
    }
}
