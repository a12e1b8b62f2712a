//! The text that the consoles show: which machine this is and how it is.

use std::fmt::Write;
use std::net::IpAddr;

use secrets::fetcher::Status as Secrets;
use serde::Deserialize;
use slots::{BootReport, StateStatus};

use crate::identity::{Identity, Status};

/// Everything that the panel shows; what is missing is a sentence in its place.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Version of the image.
    pub(crate) version: String,
    /// Which machine this is, or why that is not known.
    pub(crate) identity: Option<Identity>,
    /// What stage1 found, or why that is not known.
    pub(crate) boot: Option<BootReport>,
    /// What came of mounting `/cas`; `None`: nothing yet.
    pub(crate) cas: Option<Cas>,
    /// Addresses by card.
    pub(crate) addresses: Vec<(String, IpAddr)>,
    /// Fingerprint of the SSH host key.
    pub(crate) fingerprint: Option<String>,
    /// Answer of the service to `/up`, or why there is none; `None`: not asked yet.
    pub(crate) service: Option<Result<u16, String>>,
    /// What the fetcher of secrets says; `None`: there is none, or it has not begun.
    pub(crate) secrets: Option<Secrets>,
}

/// `/run/larder/cas.json`: what came of mounting `/cas`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cas {
    pub(crate) status: String,
    pub(crate) device: Option<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) message: Option<String>,
}

impl Facts {
    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\n  Larder {}", self.version);
        let identity = self.identity.as_ref();
        let name = identity.and_then(|identity| identity.fqdn.as_deref());
        let what = match (identity, name) {
            (Some(identity), Some(name)) => {
                let environment = identity.environment.map(environment);
                let place = [environment, identity.region.as_deref()];
                let place: Vec<_> = place.into_iter().flatten().collect();
                format!("  {name}  ({})", place.join(", "))
            }
            (Some(identity), None) if identity.status == Status::Unknown => {
                "  a machine that the fleet does not know".into()
            }
            _ => "  a machine without identity".into(),
        };
        text.push_str(&what);
        text.push_str("\n\n");
        for (name, value) in [
            ("addresses", self.addresses()),
            (
                "host key",
                self.fingerprint
                    .clone()
                    .unwrap_or_else(|| "none: no login".into()),
            ),
            ("image", self.image()),
            ("/var", self.state()),
            ("/cas", self.cas()),
            ("service", self.service()),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<10} {}", printable(&value));
        }
        if let Some(secrets) = self.secrets.as_ref().filter(|all| !all.secrets.is_empty()) {
            let _ = writeln!(text, "  {:<10} {}", "secrets", printable(&words(secrets)));
        }
        for message in self.messages() {
            let _ = writeln!(text, "\n  ! {}", printable(message));
        }
        text.push('\n');
        text
    }

    fn addresses(&self) -> String {
        if self.addresses.is_empty() {
            return "none yet".into();
        }
        let mut cards: Vec<(&str, Vec<String>)> = Vec::new();
        for (card, address) in &self.addresses {
            match cards.last_mut() {
                Some((last, addresses)) if last == card => addresses.push(address.to_string()),
                _ => cards.push((card, vec![address.to_string()])),
            }
        }
        let cards = cards.into_iter();
        let cards: Vec<_> = cards
            .map(|(card, all)| format!("{card} {}", all.join(" ")))
            .collect();
        cards.join(", ")
    }

    fn image(&self) -> String {
        match &self.boot {
            Some(boot) => {
                let hash = boot.root_hash.get(..16).unwrap_or(&boot.root_hash);
                let count = match boot.boot_count {
                    0 | 1 => String::new(),
                    count => format!(", boot {count} since the last healthy one"),
                };
                format!(
                    "slot {} of {}, root hash {hash}{count}",
                    boot.slot, boot.disk
                )
            }
            None => "unknown: there is no report of stage1".into(),
        }
    }

    fn state(&self) -> String {
        match self.boot.as_ref().map(|boot| boot.state_status) {
            Some(StateStatus::Ok) => "ok".into(),
            Some(StateStatus::Created) => "ok, made at this boot".into(),
            Some(StateStatus::Tmpfs) => "in memory: nothing is kept at the next boot".into(),
            None => "unknown".into(),
        }
    }

    fn cas(&self) -> String {
        let Some(cas) = &self.cas else {
            return "not there yet".into();
        };
        match (&*cas.status, &cas.device) {
            ("ok" | "created", Some(device)) => {
                let size = cas.bytes.map(size).unwrap_or_default();
                let made = if cas.status == "created" {
                    ", made at this boot"
                } else {
                    ""
                };
                format!("ok: {device}{size}{made}")
            }
            _ => "not there: nothing is stored".into(),
        }
    }

    fn service(&self) -> String {
        match &self.service {
            Some(Ok(200)) => "up".into(),
            Some(Ok(status)) => format!("not well: /up answers {status}"),
            Some(Err(error)) => format!("not up: {error}"),
            None => "not asked yet".into(),
        }
    }

    /// The loud sentences of everybody, each once.
    fn messages(&self) -> Vec<&str> {
        let boot = self.boot.iter().flat_map(|boot| &boot.messages);
        let identity = self.identity.iter().flat_map(|identity| &identity.messages);
        let cas = self.cas.iter().filter_map(|cas| cas.message.as_ref());
        let mut messages: Vec<&str> = Vec::new();
        for message in boot.chain(identity).chain(cas) {
            if !messages.contains(&&**message) {
                messages.push(message);
            }
        }
        messages
    }
}

/// How many secrets there are, and what is wrong with the first that is not.
fn words(secrets: &Secrets) -> String {
    let all = secrets.secrets.len();
    let mut bad = secrets.bad();
    let Some(first) = bad.next() else {
        return format!("{all} fetched");
    };
    let others = bad.count();
    let why = match &first.message {
        Some(message) => format!(": {message}"),
        None => String::new(),
    };
    let more = match others {
        0 => String::new(),
        others => format!(", as are {others} more"),
    };
    let good = all - 1 - others;
    format!(
        "{good} of {all} fetched; {} {}{more}{why}",
        first.name, first.state
    )
}

fn environment(environment: config::Environment) -> &'static str {
    match environment {
        config::Environment::Production => "production",
        config::Environment::Staging => "staging",
        config::Environment::Canary => "canary",
        config::Environment::Development => "development",
    }
}

/// A size as disks are sold: powers of 1000.
fn size(bytes: u64) -> String {
    match bytes / 1_000_000 {
        megabytes @ 0..10_000 => format!(", {megabytes} MB"),
        megabytes => format!(", {} GB", megabytes / 1000),
    }
}

/// Text that leaves the console as it is.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use secrets::fetcher::SecretStatus;

    use super::*;

    fn healthy() -> Facts {
        let mut boot = BootReport::new("/dev/sda", &"0123456789abcdef".repeat(4));
        boot.slot = "a".into();
        boot.boot_count = 1;
        boot.state_status = StateStatus::Ok;
        Facts {
            version: "1.2.3".into(),
            identity: Some(Identity {
                status: Status::Ok,
                fqdn: Some("cache-eu-central.example.org".into()),
                environment: Some(config::Environment::Production),
                region: Some("eu-central".into()),
                ..Identity::default()
            }),
            boot: Some(boot),
            cas: Some(Cas {
                status: "ok".into(),
                device: Some("/dev/sdb1".into()),
                bytes: Some(483_800_000_000),
                message: None,
            }),
            addresses: vec![
                ("ens3".into(), "192.0.2.7".parse().unwrap()),
                ("ens3".into(), "2001:db8::7".parse().unwrap()),
                ("ens4".into(), "10.0.0.7".parse().unwrap()),
            ],
            fingerprint: Some("SHA256:abc".into()),
            service: Some(Ok(200)),
            secrets: None,
        }
    }

    #[test]
    fn panels() {
        insta::assert_snapshot!("healthy", healthy().text());
        let mut degraded = healthy();
        let boot = degraded.boot.as_mut().unwrap();
        boot.boot_count = 3;
        boot.state_status = StateStatus::Tmpfs;
        boot.messages = vec!["/dev/sda7 is damaged".into(), "same".into()];
        degraded.identity = Some(Identity {
            status: Status::Unknown,
            messages: vec!["same".into(), "the fleet has no host \u{1b}[2Jx".into()],
            ..Identity::default()
        });
        degraded.cas = Some(Cas {
            status: "failed".into(),
            message: Some("no /cas: it holds a swap area".into()),
            ..Cas::default()
        });
        degraded.service = Some(Ok(503));
        let secret = |name: &str, state: &str, message: Option<&str>| SecretStatus {
            name: name.into(),
            reference: format!("op://cache/service/{name}"),
            provider: "1Password Connect".into(),
            state: state.into(),
            age: None,
            required: false,
            error: None,
            message: message.map(Into::into),
        };
        degraded.secrets = Some(Secrets {
            time: 0,
            secrets: vec![
                secret(
                    "jwt-secret",
                    "missing",
                    Some("connect.example: the token is refused"),
                ),
                secret("loki-url", "fresh", None),
                secret("loki-password", "missing", None),
            ],
            providers: Vec::new(),
            served: Default::default(),
        });
        insta::assert_snapshot!("degraded", degraded.text());
        insta::assert_snapshot!("empty", Facts::default().text());
    }
}
