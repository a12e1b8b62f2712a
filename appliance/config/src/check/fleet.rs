//! `fleet.toml`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::load::{File, Report, Step, place};
use crate::{Fleet, Host};

use super::shapes::Prefixed;
use super::{network, shapes};

impl File for Fleet {
    const NAME: &'static str = "fleet.toml";

    fn check(&self, report: &mut Report) {
        domain(&self.domain, place!["domain"], report);
        if self.hosts.is_empty() {
            report.wrong(
                place!["hosts"],
                "the fleet has no host",
                "a table [hosts.NAME] for each",
            );
        }
        for (name, host) in &self.hosts {
            check_host(name, host, report);
        }
        names(self, report);
        addresses(self, report);
    }
}

fn domain(domain: &str, at: Vec<Step>, report: &mut Report) {
    if let Err(right) = shapes::domain(domain) {
        report.wrong(at, format!("{domain:?} is no domain name"), right);
    }
}

fn check_host(name: &str, host: &Host, report: &mut Report) {
    if let Err(right) = shapes::label(name) {
        report.wrong(place!["hosts", name], "this is no host name", right);
    }
    if let Some(own) = &host.domain {
        domain(own, place!["hosts", name, "domain"], report);
    }
    if let Err(right) = shapes::label(&host.region) {
        let message = format!("{:?} cannot be a label of logs and metrics", host.region);
        report.wrong(place!["hosts", name, "region"], message, right);
    }
    for (number, more) in host.names.iter().enumerate() {
        domain(more, place!["hosts", name, "names", number], report);
    }
    if let Some(disk) = &host.disks.cas
        && let Err((message, right)) = whole_disk(disk)
    {
        report.wrong(
            place!["hosts", name, "disks", "cas"],
            format!("{disk:?} {message}"),
            right,
        );
    }
    network::check(&host.network, &place!["hosts", name, "network"], report);
}

/// The path of a disk, not of a partition of one.
fn whole_disk(path: &str) -> Result<(), (&'static str, &'static str)> {
    let right = "a path below /dev, best one that is always the same disk: /dev/disk/by-id/…";
    let below = path.strip_prefix("/dev/").unwrap_or_default();
    let part = |part: &str| !matches!(part, "" | "." | "..") && shapes::word(part, "-_.:+@");
    if !below.split('/').all(part) {
        return Err(("is no path of a disk", right));
    }
    let file = below.rsplit('/').next().unwrap_or_default();
    let digits = file.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = digits.len() < file.len();
    let links = below.starts_with("disk/");
    let partition = match links {
        true => {
            digits.ends_with("-part") && numbered
                || [
                    "disk/by-partuuid/",
                    "disk/by-partlabel/",
                    "disk/by-uuid/",
                    "disk/by-label/",
                ]
                .iter()
                .any(|folder| below.starts_with(folder))
        }
        false => {
            let letters = ["sd", "vd", "xvd", "hd"]
                .iter()
                .any(|kind| digits.starts_with(kind));
            let counted = file.starts_with("nvme") || file.starts_with("mmcblk");
            numbered && (letters || counted && digits.ends_with('p'))
        }
    };
    if partition {
        return Err((
            "is a partition",
            "the whole disk: it is partitioned at the first boot",
        ));
    }
    Ok(())
}

/// No two machines answer to one name, and none names itself twice (but for its own full name).
fn names(fleet: &Fleet, report: &mut Report) {
    let full = |name: &str, host: &Host| {
        format!("{name}.{}", host.domain.as_ref().unwrap_or(&fleet.domain))
    };
    let own = fleet.hosts.iter();
    let own = own.map(|(name, host)| (full(name, host), name.as_str()));
    let mut owners: BTreeMap<String, &str> = own.collect();
    for (name, host) in &fleet.hosts {
        for (number, more) in host.names.iter().enumerate() {
            if *more == full(name, host) {
                continue;
            }
            let at = place!["hosts", name, "names", number];
            match owners.insert(more.clone(), name) {
                None => {}
                Some(other) if other == name => {
                    report.wrong(
                        at,
                        format!("{more:?} is its name already"),
                        "each name once",
                    );
                }
                Some(other) => report.wrong(
                    at,
                    format!("{more:?} is a name of host {other:?}, too"),
                    "each name for one machine",
                ),
            }
        }
    }
}

/// No two machines have one public address; private ones may be of different networks.
fn addresses(fleet: &Fleet, report: &mut Report) {
    let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, host) in &fleet.hosts {
        for (link, found) in host.network.links.iter().enumerate() {
            for (number, text) in found.addresses.iter().enumerate() {
                let address = Prefixed::parse(text).ok().map(|found| found.address);
                let Some(address) = address.filter(|address| !private(*address)) else {
                    continue;
                };
                // Twice on one host is said where the host is checked.
                if let Some(other) = owners.insert(address, name)
                    && other != name
                {
                    report.wrong(
                        place!["hosts", name, "network", "links", link, "addresses", number],
                        format!("{address} is an address of host {other:?}, too"),
                        "each public address for one machine",
                    );
                }
            }
        }
    }
}

fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}
