//! `/etc/nftables.conf` (nft(8)).

use std::fmt::Write as _;

use crate::{Allow, Firewall, Protocol};

/// The whole rule set. What is not listed is dropped, and counted.
pub(super) fn ruleset(firewall: &Firewall) -> String {
    let mut rules = String::new();
    for allow in &firewall.allow {
        for line in rule(allow) {
            // Writing to a String cannot fail.
            let _ = writeln!(rules, "    {line}");
        }
    }
    format!(
        "#!/usr/sbin/nft -f

flush ruleset

table inet larder {{
  counter refused {{
  }}

  chain input {{
    type filter hook input priority filter; policy drop;

    iif lo accept
    ct state established,related accept
    ct state invalid counter name refused drop

    # Path MTU, neighbours, router advertisements, multicast membership, ping.
    icmp type {{ destination-unreachable, time-exceeded, parameter-problem, echo-request }} accept
    icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request }} accept
    icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
    icmpv6 type {{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} ip6 saddr fe80::/10 accept

    # DHCP answers that come by broadcast or from another address than was asked.
    udp sport 67 udp dport 68 accept
    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept

{rules}
    counter name refused
  }}

  chain forward {{
    type filter hook forward priority filter; policy drop;
  }}
}}
"
    )
}

/// One line for each family that `from` names.
fn rule(allow: &Allow) -> Vec<String> {
    let protocol = match allow.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let accept = format!(
        "{protocol} dport {} accept comment \"{}\"",
        allow.ports,
        comment(&allow.why)
    );
    if allow.from.is_empty() {
        return vec![accept];
    }
    let (six, four): (Vec<_>, Vec<_>) = allow.from.iter().partition(|from| from.contains(':'));
    [("ip", four), ("ip6", six)]
        .into_iter()
        .filter(|(_, networks)| !networks.is_empty())
        .map(|(family, networks)| {
            let networks: Vec<&str> = networks.into_iter().map(String::as_str).collect();
            format!("{family} saddr {{ {} }} {accept}", networks.join(", "))
        })
        .collect()
}

/// nft takes comments of up to 128 bytes, and no quotes inside.
fn comment(why: &str) -> String {
    let plain = |c: char| if c == '"' || c.is_control() { ' ' } else { c };
    let mut text = String::new();
    for c in why.chars().map(plain) {
        if text.len() + c.len_utf8() > 120 {
            break;
        }
        text.push(c);
    }
    text
}
