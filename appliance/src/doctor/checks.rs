//! What is looked at, a function each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use cache::control::{Line, Question};
use config::Cache;

use super::{Finding, Health};
use crate::addresses::addresses;
use crate::files::Root;
use crate::identity::Identity;
use crate::{loopback, oncall};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A certificate that ends earlier should have been renewed.
const SOON: Duration = Duration::from_secs(7 * 86_400);

fn finding(what: &'static str, health: Health) -> Finding {
    Finding { what, health }
}

fn bad(seen: impl Into<String>, remedy: impl Into<String>) -> Health {
    Health::Bad(seen.into(), remedy.into())
}

fn doubtful(seen: impl Into<String>, remedy: impl Into<String>) -> Health {
    Health::Doubtful(seen.into(), remedy.into())
}

/// Whether the configuration is one.
pub(super) fn configuration<E: std::fmt::Display>(cache: &Result<Cache, E>) -> Finding {
    finding(
        "configuration",
        match cache {
            Ok(_) => Health::Good("cache.toml is right".into()),
            Err(error) => bad(
                format!("{error:#}"),
                "correct it in configs/ and deploy; until then the service does not start",
            ),
        },
    )
}

/// Whether the disk of the artifacts is mounted, writable and has its reserve.
pub(super) fn disk(storage: &Path) -> Finding {
    let shown = storage.display();
    let health = match rustix::fs::statvfs(storage) {
        Err(error) => bad(
            format!("{shown}: {error}"),
            "systemctl status larder-cas says which disk is missing and why",
        ),
        Ok(stat) => {
            let (all, free) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
            let seen = format!("{shown}: {} GiB of {} GiB free", free >> 30, all >> 30);
            if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                bad(
                    format!("{seen}, read-only"),
                    "the disk failed, and the kernel closed it: see dmesg; replace the disk",
                )
            } else if free < all / 100 {
                bad(
                    format!("{seen}: less than a hundredth"),
                    "something else fills the disk, or nothing can be evicted: \
                     appliance cache usage, du -x",
                )
            } else {
                Health::Good(seen)
            }
        }
    };
    finding("disk", health)
}

/// Whether the store can be read and written, as the service says.
pub(super) fn store(socket: &Path) -> Finding {
    let mut usage = None;
    let asked = oncall::ask(socket, &Question::Usage { projects: false }, |line| {
        if let Line::Usage(seen) = line {
            usage = Some(seen);
        }
        Ok(())
    });
    let health = match (asked, usage) {
        (Ok(()), Some(usage)) => {
            let percent = (usage.used * 100).checked_div(usage.capacity).unwrap_or(0);
            let seen = format!(
                "{}, {} objects, {percent} % used",
                usage.status, usage.objects
            );
            if usage.status != "ready" {
                let remedy = "the disk is to blame: dmesg, journalctl -u larder-cache; the service \
                              tries again by itself";
                bad(seen, remedy)
            } else if !usage.recovered {
                let remedy = "the index is being read after a hard stop: reads miss meanwhile";
                doubtful(seen, remedy)
            } else if damage(&usage.counts) > 0 {
                let remedy =
                    "bytes came back wrong from the disk: appliance cache verify, smartctl";
                doubtful(format!("{seen}, {} damaged", damage(&usage.counts)), remedy)
            } else {
                Health::Good(seen)
            }
        }
        (asked, _) => {
            let why = asked
                .err()
                .map_or("it did not answer".into(), |why| format!("{why:#}"));
            bad(why, "run this as root; systemctl status larder-cache")
        }
    };
    finding("store", health)
}

fn damage(counts: &[(String, u64)]) -> u64 {
    let bad = |name: &str| matches!(name, "damaged" | "read_errors" | "sync_errors");
    let counts = counts.iter().filter(|(name, _)| bad(name));
    counts.map(|(_, count)| count).sum()
}

/// Whether the service answers.
pub(super) fn service(port: u16) -> Finding {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let health = match loopback::get(address, "/up", PATIENCE) {
        Ok(200) => match loopback::get(address, "/ready", PATIENCE) {
            Ok(200) => Health::Good(format!("port {port} answers, and is ready")),
            Ok(_) | Err(_) => bad(
                format!("port {port} answers, but is not ready"),
                format!("curl -k https://localhost:{port}/ready says why"),
            ),
        },
        Ok(status) => bad(
            format!("port {port} answers /up with {status}"),
            "another program may have the port: ss -lptn",
        ),
        Err(error) => bad(
            format!("port {port}: {error:#}"),
            "systemctl status larder-cache larder-cache-https.socket",
        ),
    };
    finding("service", health)
}

/// Whether the certificate is valid, and for how long.
pub(super) fn certificate(port: u16) -> Finding {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let now = SystemTime::now();
    let health = match loopback::certificate(address, PATIENCE) {
        Err(error) => bad(
            format!("port {port} shows none: {error:#}"),
            "systemctl status larder-cache",
        ),
        Ok(shown) => match validity(&shown) {
            None => bad("it cannot be read", "journalctl -u larder-cache"),
            Some((from, until)) => {
                let days = |time: SystemTime| {
                    let left = time.duration_since(now).unwrap_or_default();
                    left.as_secs() / 86_400
                };
                if now >= until {
                    bad(
                        "it ended",
                        "journalctl -u larder-cache says why it was not renewed: mostly the name's \
                         DNS, or port 80 closed",
                    )
                } else if now < from {
                    bad("it is not valid yet", "the clock of this machine is wrong")
                } else if until < now + SOON {
                    doubtful(
                        format!("it ends in {} days", days(until)),
                        "it should have been renewed: journalctl -u larder-cache",
                    )
                } else {
                    Health::Good(format!("valid for {} more days", days(until)))
                }
            }
        },
    };
    finding("certificate", health)
}

/// From when until when a certificate (DER) is valid: RFC 5280, 4.1.2.5.
fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = element(der, 0x30)?;
    let (mut rest, _) = element(certificate, 0x30)?;
    // version, if it is there
    if let Some((_, after)) = element(rest, 0xa0) {
        rest = after;
    }
    // serial number, signature, issuer
    for tag in [0x02, 0x30, 0x30] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, 0x30)?;
    let (from, rest) = time(validity)?;
    let (until, _) = time(rest)?;
    Some((from, until))
}

/// The content of an element of DER that has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (
            usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?),
            &rest[2..],
        ),
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    (found == tag).then_some((content, after))
}

/// A time at the beginning of DER, and what follows it.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (text, rest, century) = match element(der, 0x17) {
        // UTCTime: two digits of the year.
        Some((text, rest)) => (text, rest, true),
        None => {
            let (text, rest) = element(der, 0x18)?;
            (text, rest, false)
        }
    };
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, text) = match century {
        true => {
            let (year, text) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text)
        }
        false => {
            let (year, text) = text.split_at_checked(4)?;
            (year.parse().ok()?, text)
        }
    };
    let part = |at: usize| text.get(at..at + 2)?.parse::<u64>().ok();
    let date = format!("{year:04}-{:02}-{:02}", part(0)?, part(2)?);
    let seconds = config::seconds_of_date(&date)?;
    let seconds = seconds + part(4)? * 3600 + part(6)? * 60 + part(8)?;
    Some((UNIX_EPOCH + Duration::from_secs(seconds), rest))
}

/// Whether the names of this machine lead to it.
pub(super) fn names(root: &Root) -> Finding {
    let health = match (Identity::read(root), addresses()) {
        (Err(error), _) => bad(
            format!("{error:#}"),
            "this machine has no identity: give it one by imagegen flash, or larder.host",
        ),
        (_, Err(error)) => bad(format!("no addresses: {error}"), "networkctl"),
        (Ok(identity), Ok(ours)) => {
            let ours: Vec<IpAddr> = ours.into_iter().map(|(_, address)| address).collect();
            let mut wrong = Vec::new();
            for name in &identity.names {
                wrong.extend(elsewhere(name, &ours));
            }
            match wrong.is_empty() {
                true if identity.names.is_empty() => doubtful(
                    "this machine has no name",
                    "without one there is no certificate that clients trust: names in fleet.toml",
                ),
                true => Health::Good(identity.names.join(" ")),
                false => doubtful(
                    wrong.join("; "),
                    "correct the DNS, or ignore this if the machine is behind a translated address",
                ),
            }
        }
    };
    finding("names", health)
}

/// Why a name does not lead here, if it does not.
fn elsewhere(name: &str, ours: &[IpAddr]) -> Option<String> {
    match (name, 443).to_socket_addrs() {
        Err(error) => Some(format!("{name} is not in the DNS: {error}")),
        Ok(found) => {
            let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            if found.iter().any(|address| ours.contains(address)) {
                return None;
            }
            let list = |addresses: &[IpAddr]| {
                let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                texts.join(", ")
            };
            Some(format!(
                "{name} leads to {}, and this machine is {}",
                list(&found),
                list(ours)
            ))
        }
    }
}

/// Whether the clock is synchronised.
pub(super) fn clock() -> Finding {
    let synchronised = Path::new("/run/systemd/timesync/synchronized").exists();
    finding(
        "clock",
        match synchronised {
            true => Health::Good("synchronised".into()),
            false => doubtful(
                "not synchronised since the boot",
                "certificates and tokens depend on it: timedatectl timesync-status; is UDP 123 open?",
            ),
        },
    )
}

/// Whether the secrets that units need are there.
pub(super) fn secrets() -> Finding {
    let socket = Path::new(::secrets::refresh::SOCKET);
    if !socket.exists() {
        return finding("secrets", Health::Good("no fetcher is configured".into()));
    }
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let status = async {
            ::secrets::refresh::Client::connect(socket)
                .await?
                .status()
                .await
        };
        anyhow::Ok(runtime.block_on(status)?)
    };
    let remedy = "appliance secrets status says which and why";
    let health = match asked() {
        Err(error) => bad(format!("the fetcher does not answer: {error:#}"), remedy),
        Ok(status) => {
            let missing = |state: &str| matches!(state, "missing" | "stale");
            let wrong: Vec<_> = status
                .secrets
                .iter()
                .filter(|secret| missing(&secret.state))
                .collect();
            let names: Vec<_> = wrong.iter().map(|secret| secret.name.to_string()).collect();
            match (wrong.is_empty(), wrong.iter().any(|secret| secret.required)) {
                (true, _) => Health::Good(format!("{} are there", status.secrets.len())),
                (false, true) => bad(format!("missing: {}", names.join(", ")), remedy),
                (false, false) => doubtful(format!("missing: {}", names.join(", ")), remedy),
            }
        }
    };
    finding("secrets", health)
}

/// Whether the Tuist server can be reached, where one is configured.
pub(super) fn server(cache: &Cache) -> Finding {
    let Some(url) = &cache.auth.server else {
        return finding("server", Health::Good("none is configured".into()));
    };
    let rest = url.split_once("://").map_or(&**url, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let address = match host.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
        _ => format!("{host}:443"),
    };
    let connect = || {
        let mut last = None;
        for address in address.to_socket_addrs()? {
            match std::net::TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => return Ok(address),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::Error::other("its name has no address")))
    };
    finding(
        "server",
        match connect() {
            Ok(_) => Health::Good(format!("{host} can be reached")),
            Err(error) => bad(
                format!("{host}: {error}"),
                "tokens that are known are served for 25 minutes: check DNS, firewall and the server",
            ),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["example.org".into()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2024, 2, 29);
        parameters.not_after = rcgen::date_time_ymd(2051, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let (from, until) = validity(certificate.der()).unwrap();
        let day = |text| UNIX_EPOCH + Duration::from_secs(config::seconds_of_date(text).unwrap());
        assert_eq!((from, until), (day("2024-02-29"), day("2051-12-31")));
        for end in 0..certificate.der().len().min(120) {
            assert_eq!(validity(&certificate.der()[..end]), None);
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_said() {
        let here = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(elsewhere("localhost", &here), None);
        let there = ["192.0.2.1".parse().unwrap()];
        let said = elsewhere("localhost", &there).unwrap();
        assert!(said.starts_with("localhost leads to "), "{said}");
        assert!(said.ends_with("and this machine is 192.0.2.1"), "{said}");
    }

    #[test]
    fn a_disk_that_is_not_there_is_bad() {
        assert!(matches!(
            disk(Path::new("/nowhere")).health,
            Health::Bad(..)
        ));
    }
}
