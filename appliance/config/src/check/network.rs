//! The network of a host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::load::{Report, Step};
use crate::{Dhcp, Link, Network};

use super::shapes::{self, Prefixed};

/// Modes of a bond.
const MODES: &[&str] = &[
    "802.3ad",
    "active-backup",
    "balance-alb",
    "balance-rr",
    "balance-tlb",
    "balance-xor",
    "broadcast",
];
/// Least MTU of IPv6 (RFC 8200).
const MTU6: u32 = 1280;

/// A report about one link.
struct At<'a> {
    place: Vec<Step>,
    report: &'a mut Report,
}

impl At<'_> {
    fn wrong(&mut self, steps: &[Step], message: impl Into<String>, right: impl Into<String>) {
        let place = self.place.iter().chain(steps).cloned().collect();
        self.report.wrong(place, message, right);
    }
}

pub(super) fn check(network: &Network, place: &[Step], report: &mut Report) {
    let below = |steps: &[Step]| place.iter().chain(steps).cloned().collect::<Vec<_>>();
    if !network.links.is_empty() && !network.files.is_empty() {
        report.wrong(
            below(&["files".into()]),
            "there are links and raw files",
            "either: the raw files would be the only ones",
        );
    }
    for (name, text) in &network.files {
        if let Err((message, right)) = raw(name, text) {
            report.wrong(below(&["files".into(), name.into()]), message, right);
        }
    }
    let mut gateways: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, link) in network.links.iter().enumerate() {
        let mut at = At {
            place: below(&["links".into(), number.into()]),
            report,
        };
        identity(network, number, &mut at);
        stacking(network, number, &mut at);
        addressing(link, &mut at);
        mtu(network, link, &mut at);
        for (key, gateway) in [("gateway", &link.gateway), ("gateway6", &link.gateway6)] {
            if gateway.is_some()
                && let Some(other) = gateways.insert(key, number)
            {
                let message = format!("links[{other}] has the default route already");
                at.wrong(
                    &[key.into()],
                    message,
                    "one default route for each family; others are routes",
                );
            }
        }
    }
}

/// A raw file that networkd or udev would not look at is a mistake.
fn raw(name: &str, text: &str) -> Result<(), (String, &'static str)> {
    let plain = shapes::word(name, "-_.@") && !name.starts_with('.');
    let (_, kind) = name.rsplit_once('.').unwrap_or_default();
    let section = match kind {
        "network" | "link" => "[Match]",
        "netdev" => "[NetDev]",
        _ => "",
    };
    if !plain || section.is_empty() {
        return Err((
            "neither networkd nor udev would read a file of this name".into(),
            "a name as in \"10-lan.network\", \"10-bond0.netdev\" or \"10-lan.link\"",
        ));
    }
    if !text.lines().any(|line| line.trim() == section) {
        return Err((
            format!("it has no section {section}"),
            "the text of systemd.network(5), systemd.netdev(5) or systemd.link(5)",
        ));
    }
    Ok(())
}

/// Name and MAC address: what the link is.
fn identity(network: &Network, number: usize, at: &mut At<'_>) {
    let link = &network.links[number];
    let others = || network.links[..number].iter().enumerate();
    if let Some(mac) = &link.mac {
        if let Err(right) = shapes::mac(mac) {
            at.wrong(&["mac".into()], format!("{mac:?} is no MAC address"), right);
        } else if link.is_virtual() {
            at.wrong(
                &["mac".into()],
                "a bond or a VLAN is no card",
                "a name: it gets its address from its links",
            );
        }
        let same = |other: &Link| {
            other
                .mac
                .as_ref()
                .is_some_and(|other| other.eq_ignore_ascii_case(mac))
        };
        if let Some((other, _)) = others().find(|(_, other)| same(other)) {
            at.wrong(
                &["mac".into()],
                format!("links[{other}] has this address, too"),
                "each card once",
            );
        }
    }
    let Some(name) = &link.name else {
        if link.is_virtual() {
            at.wrong(
                &[],
                "a bond or a VLAN needs a name",
                "name = \"bond0\", for instance",
            );
        } else if link.mac.is_none() {
            at.wrong(
                &[],
                "it does not say which card it is",
                "mac = \"52:54:00:12:34:56\" or name = \"ens3\"",
            );
        }
        return;
    };
    let named = link.is_virtual() || link.mac.is_some();
    let globs = !named && name.contains(['*', '?']);
    let shape = if globs {
        shapes::interface(&name.replace(['*', '?'], "x"))
    } else {
        shapes::interface(name)
    };
    if let Err(right) = shape {
        at.wrong(
            &["name".into()],
            format!("{name:?} is no name of an interface"),
            right,
        );
    }
    let kernels = name
        .strip_prefix("eth")
        .is_some_and(|rest| rest.parse::<u32>().is_ok());
    if link.mac.is_some() && kernels {
        at.wrong(
            &["name".into()],
            format!("{name:?} may be what the kernel calls another card for a moment"),
            "a name of your own, as in \"lan0\"",
        );
    }
    if let Some((other, _)) = others().find(|(_, other)| other.name.as_ref() == Some(name)) {
        at.wrong(
            &["name".into()],
            format!("links[{other}] has this name, too"),
            "each name once",
        );
    }
}

/// Bonds and VLANs: on which other links they are.
fn stacking(network: &Network, number: usize, at: &mut At<'_>) {
    let link = &network.links[number];
    let find = |name: &str| {
        network
            .links
            .iter()
            .find(|other| other.name.as_deref() == Some(name))
    };
    let known: Vec<&str> = network
        .links
        .iter()
        .filter(|other| other.name != link.name)
        .filter_map(|other| other.name.as_deref())
        .collect();
    let unknown = |name: &str| match known.as_slice() {
        [] => "a link of its own, with this name".to_owned(),
        known => crate::words::suggest(name, known, "there are"),
    };
    if link.vlan.is_some() && link.bond.is_some() {
        at.wrong(
            &["bond".into()],
            "it is a VLAN, too",
            "two links: the VLAN rides on the bond",
        );
    }
    if let Some(vlan) = &link.vlan {
        let key = |key: &str| ["vlan".into(), key.into()];
        if !(1..=4094).contains(&vlan.id) {
            at.wrong(
                &key("id"),
                format!("{} is no VLAN id", vlan.id),
                "1 to 4094",
            );
        }
        match find(&vlan.link) {
            None => at.wrong(
                &key("link"),
                format!("there is no link {:?}", vlan.link),
                unknown(&vlan.link),
            ),
            Some(carrier) if carrier.vlan.is_some() => {
                at.wrong(
                    &key("link"),
                    format!("{:?} is a VLAN itself", vlan.link),
                    "a card or a bond",
                );
            }
            Some(carrier) if in_bond(network, carrier).is_some() => {
                at.wrong(
                    &key("link"),
                    format!("{:?} is part of a bond", vlan.link),
                    "the bond",
                );
            }
            Some(_) => {}
        }
        let twin = network.links[..number]
            .iter()
            .position(|other| other.vlan.as_ref() == Some(vlan));
        if let Some(other) = twin {
            at.wrong(
                &key("id"),
                format!("links[{other}] is this VLAN already"),
                "each VLAN of a link once",
            );
        }
    }
    let Some(bond) = &link.bond else {
        if let Some(name) = in_bond(network, link)
            && (!link.addresses.is_empty()
                || link.gateway.is_some()
                || link.gateway6.is_some()
                || dhcp(link).0
                || dhcp(link).1)
        {
            at.wrong(
                &[],
                format!("it is part of bond {name:?} and has an address of its own"),
                "addresses and DHCP on the bond",
            );
        }
        return;
    };
    if !MODES.contains(&bond.mode.as_str()) {
        let right = crate::words::suggest(&bond.mode, MODES, "it is one of");
        at.wrong(
            &["bond".into(), "mode".into()],
            format!("{:?} is no mode of a bond", bond.mode),
            right,
        );
    }
    if bond.links.is_empty() {
        at.wrong(
            &["bond".into(), "links".into()],
            "a bond of nothing",
            "the names of its links",
        );
    }
    for (index, name) in bond.links.iter().enumerate() {
        let step = ["bond".into(), "links".into(), index.into()];
        match find(name) {
            None => at.wrong(&step, format!("there is no link {name:?}"), unknown(name)),
            Some(member) if member.is_virtual() => {
                at.wrong(
                    &step,
                    format!("{name:?} is no card"),
                    "a card: nothing else can be part of a bond",
                );
            }
            Some(_) if bond.links[..index].contains(name) => {
                at.wrong(&step, format!("{name:?} is there twice"), "each link once");
            }
            Some(_) => {
                let other = network.links[..number].iter().find(|other| {
                    other
                        .bond
                        .as_ref()
                        .is_some_and(|bond| bond.links.contains(name))
                });
                if let Some(other) = other.and_then(|other| other.name.as_ref()) {
                    at.wrong(
                        &step,
                        format!("{name:?} is part of bond {other:?}, too"),
                        "each link in one bond",
                    );
                }
            }
        }
    }
}

/// The name of the bond that a link is part of.
fn in_bond<'a>(network: &'a Network, link: &Link) -> Option<&'a str> {
    let name = link.name.as_ref()?;
    let has = |other: &&Link| {
        other
            .bond
            .as_ref()
            .is_some_and(|bond| bond.links.contains(name))
    };
    network.links.iter().find(has)?.name.as_deref()
}

/// Whether DHCP is asked for, IPv4 and IPv6.
fn dhcp(link: &Link) -> (bool, bool) {
    match link.dhcp {
        Some(Dhcp::Yes) => (true, true),
        Some(Dhcp::Ipv4) => (true, false),
        Some(Dhcp::Ipv6) => (false, true),
        Some(Dhcp::No) | None => (false, false),
    }
}

/// Addresses, gateways, DNS servers and routes.
fn addressing(link: &Link, at: &mut At<'_>) {
    let mut networks: Vec<Prefixed> = Vec::new();
    for (index, address) in link.addresses.iter().enumerate() {
        let step = ["addresses".into(), index.into()];
        match own_address(address) {
            Ok(found) if networks.iter().any(|other| other.address == found.address) => {
                at.wrong(
                    &step,
                    format!("{address:?} is there twice"),
                    "each address once",
                );
            }
            Ok(found) => networks.push(found),
            Err(right) => at.wrong(
                &step,
                format!("{address:?} is no address of a machine"),
                right,
            ),
        }
    }
    if networks.len() < link.addresses.len() {
        // What follows from addresses that are wrong is no news.
        return;
    }
    gateway4(link, &networks, at);
    gateway6(link, &networks, at);
    for (index, server) in link.dns.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            let step = ["dns".into(), index.into()];
            at.wrong(
                &step,
                format!("{server:?} is no address of a DNS server"),
                "an IP address, as in \"9.9.9.9\"",
            );
        }
    }
    for (index, route) in link.routes.iter().enumerate() {
        let step = |key: &str| ["routes".into(), index.into(), key.into()];
        let to = match shapes::network(&route.to) {
            Ok(to) => to,
            Err(right) => {
                at.wrong(&step("to"), format!("{:?} is no network", route.to), right);
                continue;
            }
        };
        if to.length == 0 {
            at.wrong(
                &step("to"),
                "this is the default route",
                "gateway or gateway6 of the link",
            );
        }
        let Some(via) = &route.via else { continue };
        match via.parse::<IpAddr>() {
            Ok(via) if via.is_ipv4() != to.address.is_ipv4() => {
                at.wrong(
                    &step("via"),
                    format!("{via} is not of the family of {}", route.to),
                    "a gateway of the same family",
                );
            }
            Ok(via) => {
                let near = networks.iter().any(|own| own.contains(via));
                let (four, six) = dhcp(link);
                let learnt = if via.is_ipv4() {
                    four
                } else {
                    six || is_link_local(via)
                };
                if !near && !learnt {
                    at.wrong(
                        &step("via"),
                        format!("{via} is in no network of this link"),
                        networks_of(&networks),
                    );
                }
            }
            Err(_) => at.wrong(
                &step("via"),
                format!("{via:?} is no IP address"),
                "the address of a gateway",
            ),
        }
    }
}

fn own_address(text: &str) -> Result<Prefixed, String> {
    let found = Prefixed::parse(text)?;
    let special = match found.address {
        IpAddr::V4(address) => {
            let network = IpAddr::V4(address) == found.network().address;
            let broadcast = u32::from(address)
                | u32::MAX.checked_shr(found.length.into()).unwrap_or(0)
                == u32::from(address);
            if found.length < 31 && network {
                return Err("that of a machine: this is the network itself".into());
            }
            if found.length < 31 && broadcast && found.length > 0 {
                return Err("that of a machine: this is the network's broadcast address".into());
            }
            address.is_loopback()
                || address.is_multicast()
                || address.is_unspecified()
                || address == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_multicast() || address.is_unspecified()
        }
    };
    if special || found.length == 0 {
        return Err("one that others can reach, with the length of its network's prefix".into());
    }
    Ok(found)
}

fn gateway4(link: &Link, networks: &[Prefixed], at: &mut At<'_>) {
    let key = ["gateway".into()];
    let Some(text) = &link.gateway else {
        if link.gateway_on_link && link.gateway6.is_none() {
            at.wrong(
                &["gateway_on_link".into()],
                "there is no gateway",
                "gateway = …, or leave this out",
            );
        }
        return;
    };
    let Ok(gateway) = text.parse::<Ipv4Addr>() else {
        let right = match text.parse::<Ipv6Addr>() {
            Ok(_) => "an IPv4 address here; this one belongs to gateway6",
            Err(_) => "an IPv4 address, as in \"203.0.113.1\"",
        };
        at.wrong(&key, format!("{text:?} is no IPv4 gateway"), right);
        return;
    };
    let gateway = IpAddr::V4(gateway);
    let own: Vec<&Prefixed> = networks
        .iter()
        .filter(|own| own.address.is_ipv4())
        .collect();
    if own.iter().any(|own| own.address == gateway) {
        at.wrong(
            &key,
            format!("{gateway} is this machine itself"),
            "the address of the router",
        );
    } else if own.is_empty() && !dhcp(link).0 {
        at.wrong(
            &key,
            "the link has no IPv4 address",
            "addresses = [\"203.0.113.7/24\"], or dhcp = \"ipv4\"",
        );
    } else if !own.is_empty()
        && !own.iter().any(|own| own.contains(gateway))
        && !link.gateway_on_link
    {
        let right = format!(
            "{}; or gateway_on_link = true, if it is on this cable all the same",
            networks_of(networks)
        );
        at.wrong(
            &key,
            format!("{gateway} is in no network of this link"),
            right,
        );
    }
}

fn gateway6(link: &Link, networks: &[Prefixed], at: &mut At<'_>) {
    let key = ["gateway6".into()];
    let Some(text) = &link.gateway6 else { return };
    let Ok(gateway) = text.parse::<Ipv6Addr>() else {
        let right = match text.contains('%') {
            true => "the address without interface: the link is this one",
            false => "an IPv6 address, as in \"fe80::1\"",
        };
        at.wrong(&key, format!("{text:?} is no IPv6 gateway"), right);
        return;
    };
    let gateway = IpAddr::V6(gateway);
    let own: Vec<&Prefixed> = networks
        .iter()
        .filter(|own| own.address.is_ipv6())
        .collect();
    if own.iter().any(|own| own.address == gateway) {
        at.wrong(
            &key,
            format!("{gateway} is this machine itself"),
            "the address of the router",
        );
    } else if own.is_empty() && !dhcp(link).1 {
        at.wrong(
            &key,
            "the link has no IPv6 address",
            "addresses = [\"2001:db8::7/64\"], or dhcp = \"ipv6\"",
        );
    } else if !is_link_local(gateway)
        && !own.iter().any(|own| own.contains(gateway))
        && !link.gateway_on_link
    {
        let right = format!(
            "{}, a link-local one (\"fe80::1\"), or gateway_on_link = true",
            networks_of(networks)
        );
        at.wrong(
            &key,
            format!("{gateway} is in no network of this link"),
            right,
        );
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn networks_of(networks: &[Prefixed]) -> String {
    if networks.is_empty() {
        return "one that the link's addresses reach; it has none".into();
    }
    let show = |own: &Prefixed| format!("{}/{}", own.network().address, own.length);
    let list: Vec<String> = networks.iter().map(show).collect();
    format!("one in {}", list.join(" or "))
}

fn mtu(network: &Network, link: &Link, at: &mut At<'_>) {
    let Some(mtu) = link.mtu else { return };
    let key = ["mtu".into()];
    let six = link.gateway6.is_some()
        || dhcp(link).1
        || link.addresses.iter().any(|text| text.contains(':'));
    if !(68..=65535).contains(&mtu) {
        at.wrong(
            &key,
            format!("{mtu} is out of range"),
            "68 to 65535 bytes; 1500 as a rule, 9000 for jumbo frames",
        );
    } else if six && mtu < MTU6 {
        at.wrong(
            &key,
            format!("{mtu} is too little for IPv6"),
            format!("at least {MTU6}"),
        );
    }
    let carrier = link.vlan.as_ref().and_then(|vlan| {
        network
            .links
            .iter()
            .find(|other| other.name.as_ref() == Some(&vlan.link))
    });
    if let Some(most) = carrier.and_then(|carrier| carrier.mtu)
        && mtu > most
    {
        at.wrong(
            &key,
            format!("{mtu} is more than the {most} of the link below"),
            format!("at most {most}"),
        );
    }
}
