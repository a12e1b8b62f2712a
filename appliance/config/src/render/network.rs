//! Files for systemd-networkd (systemd.network(5), systemd.netdev(5)) and udev (systemd.link(5)).

use std::fmt::Write as _;

use crate::{Dhcp, Link, Network};

/// Wired cards only: no VLAN, bridge or tunnel that has a kind. DHCP servers know a machine by its
/// address, which outlives a reinstall where the machine id does not.
const WIRED: &str = "\
[Match]
Type=ether
Kind=!*

[Link]
RequiredForOnline=routable

[Network]
DHCP=yes
LLMNR=no

[DHCPv4]
ClientIdentifier=mac
UseHostname=no

[DHCPv6]
UseHostname=no
";

/// Name and content of the files for networkd: the raw ones if there are some, else those that the
/// typed links become, else DHCP on every wired card.
///
/// A card that no link names stays down.
#[must_use]
pub fn network_files(network: &Network) -> Vec<(String, String)> {
    if !network.files.is_empty() {
        return network.files.clone().into_iter().collect();
    }
    if network.links.is_empty() {
        return vec![("80-wired.network".into(), WIRED.into())];
    }
    let mut files = Vec::new();
    for (number, link) in network.links.iter().enumerate() {
        let label = label(link, number);
        let stem = format!("{}-{label}", 10 + number);
        if let (Some(mac), Some(name), false) = (&link.mac, &link.name, link.is_virtual()) {
            files.push((format!("{stem}.link"), rename(mac, name)));
        }
        if let Some(device) = device(link) {
            files.push((format!("{stem}.netdev"), device));
        }
        files.push((format!("{stem}.network"), link_file(network, link)));
    }
    files
}

/// A word for file names.
fn label(link: &Link, number: usize) -> String {
    match (&link.name, &link.mac) {
        (Some(name), _) => name.replace(['*', '?', '/'], "_"),
        (None, Some(mac)) => mac.replace(':', "").to_ascii_lowercase(),
        (None, None) => format!("link{number}"),
    }
}

/// The card with this address gets this name, so that bonds and VLANs can refer to it.
fn rename(mac: &str, name: &str) -> String {
    format!(
        "[Match]\nPermanentMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\nMACAddressPolicy=none\n"
    )
}

/// The .netdev file of a bond or a VLAN.
fn device(link: &Link) -> Option<String> {
    let name = link.name.as_deref().unwrap_or_default();
    let mut text = String::from("[NetDev]\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Name={name}");
    if let Some(bond) = &link.bond {
        let _ = writeln!(
            text,
            "Kind=bond\n\n[Bond]\nMode={}\nMIIMonitorSec=100ms",
            bond.mode
        );
        if ["802.3ad", "balance-xor"].contains(&bond.mode.as_str()) {
            text.push_str("TransmitHashPolicy=layer3+4\n");
        }
        if bond.mode == "802.3ad" {
            text.push_str("LACPTransmitRate=fast\n");
        }
        return Some(text);
    }
    let vlan = link.vlan.as_ref()?;
    let _ = writeln!(text, "Kind=vlan\n\n[VLAN]\nId={}", vlan.id);
    Some(text)
}

/// The .network file of a link.
fn link_file(network: &Network, link: &Link) -> String {
    let name = link.name.as_deref();
    let named = |other: &str| name == Some(other);
    let bond = network.links.iter().find(|other| {
        let bond = other.bond.as_ref();
        bond.is_some_and(|bond| bond.links.iter().any(|member| named(member)))
    });
    let vlans: Vec<&str> = network
        .links
        .iter()
        .filter(|other| other.vlan.as_ref().is_some_and(|vlan| named(&vlan.link)))
        .filter_map(|other| other.name.as_deref())
        .collect();
    let mut text = String::from("[Match]\n");
    // Writing to a String cannot fail.
    let _ = match (name, &link.mac) {
        (Some(name), _) => writeln!(text, "Name={name}"),
        (None, Some(mac)) => writeln!(text, "PermanentMACAddress={mac}\nType=ether\nKind=!*"),
        (None, None) => writeln!(text, "Type=ether\nKind=!*"),
    };
    let (four, six) = match &link.dhcp {
        Some(Dhcp::Yes) => (true, true),
        Some(Dhcp::No) => (false, false),
        Some(Dhcp::Ipv4) => (true, false),
        Some(Dhcp::Ipv6) => (false, true),
        // Nothing said: DHCP, unless there is another purpose.
        None => {
            let alone = link.addresses.is_empty() && bond.is_none() && vlans.is_empty();
            (alone, alone)
        }
    };
    let addressed = four || six || !link.addresses.is_empty();
    text.push_str("\n[Link]\n");
    if let Some(mtu) = link.mtu {
        let _ = writeln!(text, "MTUBytes={mtu}");
    }
    let online = if addressed { "routable" } else { "no" };
    let _ = writeln!(text, "RequiredForOnline={online}");
    text.push_str("\n[Network]\n");
    let dhcp = match (four, six) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    let _ = writeln!(text, "DHCP={dhcp}\nLLMNR=no");
    // DHCPv6 begins with a router's word, and a static machine listens to no router.
    let _ = writeln!(text, "IPv6AcceptRA={}", if six { "yes" } else { "no" });
    if !addressed {
        text.push_str("LinkLocalAddressing=no\n");
    }
    if let Some(bond) = bond.and_then(|bond| bond.name.as_deref()) {
        let _ = writeln!(text, "Bond={bond}");
    }
    for vlan in vlans {
        let _ = writeln!(text, "VLAN={vlan}");
    }
    for address in &link.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for server in &link.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if let Some(gateway) = &link.gateway {
        let _ = write!(text, "\n[Route]\nGateway={gateway}\n");
        if link.gateway_on_link {
            text.push_str("GatewayOnLink=yes\n");
        }
    }
    if let Some(gateway) = &link.gateway6 {
        let _ = write!(text, "\n[Route]\nGateway={gateway}\nGatewayOnLink=yes\n");
    }
    for route in &link.routes {
        let _ = write!(text, "\n[Route]\nDestination={}\n", route.to);
        match &route.via {
            Some(via) => {
                let _ = writeln!(text, "Gateway={via}");
            }
            None => text.push_str("Scope=link\n"),
        }
    }
    if four {
        text.push_str("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n");
    }
    if six {
        text.push_str("\n[DHCPv6]\nUseHostname=no\n");
    }
    text
}
