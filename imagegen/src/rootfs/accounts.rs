//! Users and groups: what base-passwd, passwd and systemd-sysusers would do at installation.
//!
//! The masters of base-passwd come first, then every `u`, `g` and `m` line of the tree's
//! sysusers.d (its format: sysusers.d(5)), then the people of `system.toml`. systemd-sysusers
//! gives `-` ids by what is free at run time; here each has a fixed one, so that two versions of
//! the image agree about who owns a file on state.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use config::System;

use super::Root;

/// Ids of accounts that sysusers.d leaves open. They may never change: state holds their files.
const FIXED: &[(&str, u32)] = &[
    ("_ssh", 101),
    ("messagebus", 999),
    ("systemd-journal", 998),
    ("systemd-network", 997),
    ("sshd", 996),
    ("input", 995),
    ("sgx", 994),
    ("clock", 993),
    ("kvm", 992),
    ("render", 991),
    ("cache", 990),
    ("systemd-timesync", 989),
    ("systemd-resolve", 988),
    ("tss", 987),
    ("systemd-coredump", 986),
    ("systemd-oom", 985),
    ("shipper", 984),
    ("wheel", 980),
];

/// Accounts that maintainer scripts make by hand: package, line of sysusers.d(5).
const BY_SCRIPTS: &[(&str, &str)] = &[
    ("openssh-client", "g _ssh -"),
    ("tpm-udev", "g tss -"),
    (
        "tpm-udev",
        "u tss - \"TPM software stack\" /var/lib/tpm /bin/false",
    ),
];

#[derive(Clone, Debug)]
struct User {
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
    /// A service: nobody logs in as it.
    service: bool,
    /// `u!` of sysusers.d: not even with a key.
    expired: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    gid: u32,
    members: Vec<String>,
    /// Of sysusers.d, not of Debian's masters.
    service: bool,
}

/// The account database while it is put together.
#[derive(Debug, Default)]
struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, Group>,
}

/// Writes `/etc/passwd`, `group`, `shadow`, `gshadow`, `subuid`, `subgid` and what makes homes.
///
/// # Errors
/// A malformed master or sysusers line, an id that is nowhere fixed, or two accounts of one id:
/// each names the file and what to do.
pub(crate) fn apply(root: &mut Root, system: &System) -> Result<()> {
    let mut accounts = Accounts::default();
    accounts.masters(root)?;
    let mut sysusers: Vec<(String, String)> = root
        .tree
        .below("/usr/lib/sysusers.d")
        .filter(|(path, _)| path.ends_with(".conf"))
        .filter_map(|(path, node)| {
            let text = String::from_utf8_lossy(node.content()?).into_owned();
            Some((path.to_string(), text))
        })
        .collect();
    for (package, line) in BY_SCRIPTS {
        if root.packages.contains(*package) {
            sysusers.push((format!("effect of {package}"), (*line).to_string()));
        }
    }
    // Groups first: a user's line may name a group of a later file.
    for pass in ["g", "u", "m"] {
        for (path, text) in &sysusers {
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
                if !line.starts_with('#') {
                    accounts
                        .sysusers_line(pass, line)
                        .with_context(|| format!("{path}: line {line:?}"))?;
                }
            }
        }
    }
    for (name, user) in &system.users {
        accounts.person(name, user.uid, &user.groups)?;
    }
    accounts.check()?;
    accounts.write(root)?;
    homes(root, system)
}

/// The homes of people, made at boot: they are on state. Those of sysusers.d are their files' care.
fn homes(root: &mut Root, system: &System) -> Result<()> {
    let mut text = String::new();
    for name in system.users.keys() {
        let _ = writeln!(text, "d /var/home/{name} 0700 {name} {name} -");
    }
    if text.is_empty() {
        return Ok(());
    }
    let path = "/usr/lib/tmpfiles.d/larder-homes.conf";
    root.file(path, 0o644, text, "system.toml users")
}

impl Accounts {
    /// The masters of base-passwd: `name:*:uid:gid:gecos:home:shell` and `name:*:gid:members`.
    fn masters(&mut self, root: &Root) -> Result<()> {
        for line in root.text("/usr/share/base-passwd/group.master")?.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            ensure!(
                fields.len() == 4,
                "group.master: {line:?} has not four fields"
            );
            let group = Group {
                gid: fields[2].parse()?,
                ..Group::default()
            };
            self.groups.insert(fields[0].into(), group);
        }
        for line in root.text("/usr/share/base-passwd/passwd.master")?.lines() {
            let f: Vec<&str> = line.split(':').collect();
            ensure!(f.len() == 7, "passwd.master: {line:?} has not seven fields");
            self.users.insert(
                f[0].into(),
                User {
                    uid: f[2].parse()?,
                    gid: f[3].parse()?,
                    gecos: f[4].into(),
                    home: f[5].into(),
                    shell: f[6].into(),
                    service: false,
                    expired: false,
                },
            );
        }
        Ok(())
    }

    fn sysusers_line(&mut self, pass: &str, line: &str) -> Result<()> {
        let words = words(line);
        let (kind, name, expired) = match words.as_slice() {
            [kind, name, ..] => {
                let plain = kind.trim_end_matches('!');
                (plain, name.as_str(), plain != kind)
            }
            _ => bail!("a line needs a type and a name"),
        };
        let word = |n: usize| words.get(n).map(String::as_str).filter(|w| *w != "-");
        if kind != pass {
            ensure!(
                ["u", "g", "m", "r"].contains(&kind),
                "type {kind:?} is not known"
            );
            return Ok(());
        }
        match kind {
            "g" => self.group(name, word(2)),
            "m" => {
                let group = word(2).context("a member line needs a group")?;
                self.groups
                    .get_mut(group)
                    .with_context(|| format!("group {group} is not declared"))?
                    .members
                    .push(name.to_string());
                Ok(())
            }
            _ => {
                if self.users.contains_key(name) {
                    return Ok(());
                }
                let (uid, group) = match word(2).map(|id| id.split_once(':').unwrap_or((id, ""))) {
                    Some((uid, group)) => (Some(uid).filter(|u| *u != "-"), group),
                    None => (None, ""),
                };
                let uid = match uid {
                    Some(uid) => uid.parse()?,
                    None => fixed(name)?,
                };
                let gid = match group {
                    "" => {
                        let id = uid.to_string();
                        self.group(name, Some(&id))?;
                        self.groups[name].gid
                    }
                    other => match other.parse() {
                        Ok(gid) => gid,
                        Err(_) => {
                            self.groups
                                .get(other)
                                .with_context(|| format!("group {other} is not declared"))?
                                .gid
                        }
                    },
                };
                let shell = word(5).unwrap_or("/usr/sbin/nologin");
                let user = User {
                    uid,
                    gid,
                    gecos: word(3).unwrap_or("").into(),
                    home: word(4).unwrap_or("/").into(),
                    shell: shell.into(),
                    service: !shell.ends_with("sh"),
                    expired,
                };
                self.users.insert(name.into(), user);
                Ok(())
            }
        }
    }

    fn group(&mut self, name: &str, id: Option<&str>) -> Result<()> {
        if !self.groups.contains_key(name) {
            let gid = match id {
                Some(id) => id.parse().with_context(|| format!("group id {id:?}"))?,
                None => fixed(name)?,
            };
            let group = Group {
                gid,
                members: Vec::new(),
                service: true,
            };
            self.groups.insert(name.into(), group);
        }
        Ok(())
    }

    /// Somebody of `system.toml`, with a group of the same name and id.
    fn person(&mut self, name: &str, uid: u32, groups: &[String]) -> Result<()> {
        ensure!(
            !self.users.contains_key(name),
            "user {name} of system.toml is there already"
        );
        let group = Group {
            gid: uid,
            ..Group::default()
        };
        self.groups.insert(name.into(), group);
        for group in groups {
            self.groups
                .get_mut(group)
                .with_context(|| format!("user {name}: there is no group {group}"))?
                .members
                .push(name.into());
        }
        let home = format!("/var/home/{name}");
        let user = User {
            uid,
            gid: uid,
            gecos: String::new(),
            home,
            shell: "/bin/bash".into(),
            service: false,
            expired: false,
        };
        self.users.insert(name.into(), user);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let mut by_uid = BTreeMap::new();
        for (name, user) in &self.users {
            if let Some(other) = by_uid.insert(user.uid, name) {
                bail!("users {other} and {name} both have uid {}", user.uid);
            }
        }
        let mut by_gid = BTreeMap::new();
        for (name, Group { gid, .. }) in &self.groups {
            if let Some(other) = by_gid.insert(gid, name) {
                bail!("groups {other} and {name} both have gid {gid}");
            }
        }
        Ok(())
    }

    fn write(&self, root: &mut Root) -> Result<()> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_by_key(|(_, user)| user.uid);
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| group.gid);
        let (mut passwd, mut shadow) = (String::new(), String::new());
        for (name, u) in users {
            let User {
                uid,
                gid,
                gecos,
                home,
                shell,
                ..
            } = u;
            let _ = writeln!(passwd, "{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}");
            // Nobody has a password. The day of its last change is long past, and no clock is asked;
            // `!` marks an account as locked, which some programs take as no key either.
            let expires = if u.expired { "1" } else { "" };
            let _ = match u.service {
                true => writeln!(shadow, "{name}:!*:1:::::{expires}:"),
                false => writeln!(shadow, "{name}:*:1:0:99999:7:::"),
            };
        }
        let (mut group, mut gshadow) = (String::new(), String::new());
        for (name, g) in groups {
            let (gid, members) = (g.gid, g.members.join(","));
            let password = if g.service { "!*" } else { "*" };
            let _ = writeln!(group, "{name}:x:{gid}:{members}");
            let _ = writeln!(gshadow, "{name}:{password}::{members}");
        }
        let shadow_gid = self.groups.get("shadow").map_or(42, |group| group.gid);
        let origin = "effect passwd";
        root.file("/etc/passwd", 0o644, passwd, origin)?;
        root.file("/etc/group", 0o644, group, origin)?;
        root.file("/etc/shadow", 0o640, shadow, origin)?;
        root.file("/etc/gshadow", 0o640, gshadow, origin)?;
        for path in ["/etc/shadow", "/etc/gshadow"] {
            root.chown(path, 0, shadow_gid)?;
        }
        for path in ["/etc/subuid", "/etc/subgid"] {
            root.file(path, 0o644, "", origin)?;
        }
        Ok(())
    }
}

/// The id that an account has in every image.
pub(super) fn fixed(name: &str) -> Result<u32> {
    FIXED
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, id)| *id)
        .with_context(|| {
            format!("{name} has no fixed id: give it one in imagegen/src/rootfs/accounts.rs")
        })
}

/// Splits a sysusers.d line into words; double quotes hold a word together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests;
