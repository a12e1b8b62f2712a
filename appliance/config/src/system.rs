//! `configs/system.toml`: how every machine of the fleet is set up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The file `system.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Kernel parameters, `net.core.somaxconn = 16384`.
    pub sysctl: BTreeMap<String, SysctlValue>,
    /// Limits of processes.
    pub limits: Limits,
    /// Transparent huge pages: `never`, `madvise`, `always`.
    pub transparent_hugepage: String,
    /// Lines of tmpfiles.d(5).
    pub tmpfiles: Vec<String>,
    /// Compressed swap in memory; no secret reaches a disk.
    pub zram: Zram,
    /// How the file systems are made and mounted.
    pub filesystems: BTreeMap<String, Filesystem>,
    /// What may come in.
    pub firewall: Firewall,
    /// People.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// The clock.
    pub time: Time,
    /// Name resolution.
    pub dns: Dns,
}

/// A sysctl's value: a number or text as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SysctlValue {
    /// A number.
    Number(i64),
    /// Text, several numbers included (`"4096 131072 67108864"`).
    Text(String),
}

impl<'de> Deserialize<'de> for SysctlValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = SysctlValue;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number, or text in quotes as the kernel takes it")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<SysctlValue, E> {
                Ok(SysctlValue::Number(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SysctlValue, E> {
                Ok(SysctlValue::Text(text.into()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Limits of processes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Open files, soft and hard, of logins (PAM) and units (systemd).
    pub nofile: u64,
}

/// zram swap.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Zram {
    /// Size at most, in MiB; 0 means none.
    pub size_mib: u64,
    /// Size as a share of memory, 1 to 200 percent; the smaller of both is taken.
    pub memory_percent: u64,
    /// Compression algorithm.
    pub algorithm: String,
}

/// How one file system (`state`, `cas`, `esp`) is made and mounted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// Mount options.
    pub mount: Vec<String>,
    /// Options for mke2fs when it is made, as argv words.
    #[serde(default)]
    pub mkfs: Vec<String>,
}

/// What may come in; everything else is dropped.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    /// Rules for incoming connections.
    pub allow: Vec<Allow>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// `tcp` or `udp`.
    #[serde(default)]
    pub protocol: Protocol,
    /// A port (`"443"`) or a range (`"9100-9155"`).
    pub ports: String,
    /// Only from these networks; empty: from anywhere.
    #[serde(default)]
    pub from: Vec<String>,
    /// What it is for.
    pub why: String,
}

/// Transport protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A person (no passwords, keys only).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Fixed user id, 1000 to 59999.
    pub uid: u32,
    /// Groups beside the user's own; `wheel` gives sudo without a password.
    #[serde(default)]
    pub groups: Vec<String>,
    /// SSH public keys, lines of authorized_keys.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// The clock.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Time zone, `Etc/UTC`.
    pub zone: String,
    /// NTP servers; empty: those of DHCP, else `fallback`.
    #[serde(default)]
    pub servers: Vec<String>,
    /// NTP servers when nobody names one.
    #[serde(default)]
    pub fallback: Vec<String>,
}

/// Name resolution.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Servers; empty: those of DHCP or of the host's network.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Servers when nobody names one.
    #[serde(default)]
    pub fallback: Vec<String>,
}
