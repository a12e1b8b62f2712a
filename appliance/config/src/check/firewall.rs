//! The firewall's table.

use crate::Firewall;
use crate::load::{Report, place};

use super::shapes::{self, Prefixed};

/// A rule that is right so far.
struct Seen<'a> {
    number: usize,
    ports: (u16, u16),
    text: &'a str,
    from: Vec<Prefixed>,
}

pub(super) fn check(firewall: &Firewall, report: &mut Report) {
    let mut seen: Vec<Seen<'_>> = Vec::new();
    for (number, allow) in firewall.allow.iter().enumerate() {
        let at = |key: &str| place!["firewall", "allow", number, key];
        let mut from = Vec::new();
        for (index, network) in allow.from.iter().enumerate() {
            let at = place!["firewall", "allow", number, "from", index];
            match shapes::network(network) {
                Ok(network) => from.push(network),
                Err(right) => report.wrong(at, format!("{network:?} is no network"), right),
            }
        }
        if let Err(right) = shapes::line(&allow.why) {
            report.wrong(at("why"), "it does not say what the rule is for", right);
        }
        let ports = match shapes::ports(&allow.ports) {
            Ok(ports) => ports,
            Err(right) => {
                report.wrong(at("ports"), format!("{:?} is no port", allow.ports), right);
                continue;
            }
        };
        let rule = Seen {
            number,
            ports,
            text: &allow.ports,
            from,
        };
        let same = |other: &&Seen<'_>| firewall.allow[other.number].protocol == allow.protocol;
        if let Some(other) = seen.iter().filter(same).find(|other| overlap(other, &rule)) {
            report.wrong(
                at("ports"),
                format!(
                    "{:?} overlaps with {:?} of rule {}",
                    rule.text,
                    other.text,
                    other.number + 1
                ),
                "each port once: one of the two rules already lets it in",
            );
        }
        seen.push(rule);
    }
}

fn overlap(a: &Seen<'_>, b: &Seen<'_>) -> bool {
    let ports = a.ports.0 <= b.ports.1 && b.ports.0 <= a.ports.1;
    let everywhere = a.from.is_empty() || b.from.is_empty();
    ports && (everywhere || a.from.iter().any(|a| b.from.iter().any(|b| a.overlaps(b))))
}
