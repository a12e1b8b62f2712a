//! `configs/fleet.toml`: the machines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The file `fleet.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Domain of every host that names none.
    pub domain: String,
    /// The machines, by host name (its first label).
    pub hosts: BTreeMap<String, Host>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// What it serves.
    pub environment: Environment,
    /// Region label for logs and metrics.
    pub region: String,
    /// Domain, if not the fleet's.
    #[serde(default)]
    pub domain: Option<String>,
    /// More names that it answers to (certificates).
    #[serde(default)]
    pub names: Vec<String>,
    /// Its disks.
    #[serde(default)]
    pub disks: Disks,
    /// Its network; DHCP on every wired card if nothing is said.
    #[serde(default)]
    pub network: Network,
}

/// What a machine serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Users' builds.
    Production,
    /// Before production.
    Staging,
    /// First to get a change.
    Canary,
    /// A developer's machine.
    Development,
}

/// The disks of a machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Disks {
    /// A second disk for `/cas`: a path below `/dev` (best `/dev/disk/by-id/…`); none: partition 8
    /// of the disk that boots.
    #[serde(default)]
    pub cas: Option<String>,
}

/// The network of a machine: typed links, or raw systemd.network files, not both.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Links in order.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Raw networkd files, name (`10-x.network`, `.netdev`, `.link`) → content.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// One link: a card, a bond or a VLAN.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Interface name that it is matched by, or that a bond or VLAN gets; with a MAC address
    /// beside it, the name that the card with that address gets.
    #[serde(default)]
    pub name: Option<String>,
    /// MAC address that it is matched by.
    #[serde(default)]
    pub mac: Option<String>,
    /// DHCP; if nothing is said, a link has it unless it has addresses, is part of a bond or
    /// carries VLANs.
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
    /// Addresses with prefix length, `203.0.113.7/32`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// IPv4 default gateway.
    #[serde(default)]
    pub gateway: Option<String>,
    /// The IPv4 gateway is outside the address's network and reached on this link all the same.
    #[serde(default)]
    pub gateway_on_link: bool,
    /// IPv6 default gateway; link-local (`fe80::1`) is welcome.
    #[serde(default)]
    pub gateway6: Option<String>,
    /// DNS servers.
    #[serde(default)]
    pub dns: Vec<String>,
    /// MTU in bytes.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Makes this link a VLAN on another.
    #[serde(default)]
    pub vlan: Option<Vlan>,
    /// Makes this link a bond of others.
    #[serde(default)]
    pub bond: Option<Bond>,
    /// More routes.
    #[serde(default)]
    pub routes: Vec<Route>,
}

impl Link {
    /// Whether it is a bond or a VLAN instead of a card.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.bond.is_some() || self.vlan.is_some()
    }
}

/// DHCP of a link; in TOML `true`, `false`, `"ipv4"` or `"ipv6"`. Router advertisements count as
/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dhcp {
    /// Both families.
    Yes,
    /// None.
    No,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Serialize for Dhcp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
            Self::Ipv4 => serializer.serialize_str("ipv4"),
            Self::Ipv6 => serializer.serialize_str("ipv6"),
        }
    }
}

impl<'de> Deserialize<'de> for Dhcp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Dhcp;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, \"ipv4\" or \"ipv6\"")
            }

            fn visit_bool<E: serde::de::Error>(self, both: bool) -> Result<Dhcp, E> {
                Ok(if both { Dhcp::Yes } else { Dhcp::No })
            }

            fn visit_str<E: serde::de::Error>(self, family: &str) -> Result<Dhcp, E> {
                match family {
                    "ipv4" => Ok(Dhcp::Ipv4),
                    "ipv6" => Ok(Dhcp::Ipv6),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vlan {
    /// VLAN id, 1 to 4094.
    pub id: u16,
    /// Name of the link that it rides on.
    pub link: String,
}

/// A bond.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    /// Mode: `active-backup`, `802.3ad`, …
    pub mode: String,
    /// Names of its links.
    pub links: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination network.
    pub to: String,
    /// Gateway; none: on link.
    #[serde(default)]
    pub via: Option<String>,
}
