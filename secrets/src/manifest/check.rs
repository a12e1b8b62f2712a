//! From the file to the checked manifest.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use toml::Spanned;

use super::file::{self, File, OnePasswordKind, VaultAuth};
use super::staleness::duration;
use super::{
    Budget, Consumer, Entry, Manifest, Problem, Provider, ProviderKind, Staleness, TOKEN,
    VaultLogin,
};
use crate::reference::{Reference, Scheme};
use crate::transport::Origin;

/// Unit and credential together, in bytes: the name of the socket from which systemd asks holds
/// both, and longer ones fail (systemd issue 36709).
const LONGEST_PAIR: usize = 80;

/// Collects what is wrong.
struct Problems<'a> {
    text: &'a str,
    found: Vec<Problem>,
}

impl Problems<'_> {
    fn at(&mut self, offset: usize, message: impl Into<String>) {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        self.found.push(Problem {
            line,
            message: message.into(),
        });
    }

    /// The value, or the problem noted.
    fn take<T>(&mut self, offset: usize, result: Result<T, impl ToString>) -> Option<T> {
        result
            .map_err(|problem| self.at(offset, problem.to_string()))
            .ok()
    }
}

pub(super) fn check(text: &str) -> Result<Manifest, Vec<Problem>> {
    let mut problems = Problems {
        text,
        found: Vec::new(),
    };
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            problems.at(offset, error.message().trim().replace('\n', ", "));
            return Err(problems.found);
        }
    };
    let providers = providers(&file.providers, &mut problems);
    let secrets = secrets(file.secrets, &providers, &mut problems);
    if problems.found.is_empty() {
        Ok(Manifest { providers, secrets })
    } else {
        Err(problems.found)
    }
}

fn providers(file: &file::Providers, problems: &mut Problems<'_>) -> BTreeMap<Scheme, Provider> {
    let mut providers = BTreeMap::from([(
        Scheme::Cred,
        Provider {
            kind: ProviderKind::Credential,
            token: String::new(),
            ca: None,
            poll: None,
            budget: Budget {
                burst: u32::MAX,
                per_hour: u32::MAX,
            },
        },
    )]);
    // Offsets, to name the second of two that share a credential.
    let mut tokens: Vec<(usize, Scheme)> = Vec::new();
    if let Some(section) = &file.onepassword {
        if let Some(provider) = onepassword(section, problems) {
            providers.insert(Scheme::Op, provider);
        }
        tokens.push((section.span().start, Scheme::Op));
    }
    if let Some(section) = &file.vault {
        if let Some(provider) = vault(section, problems) {
            providers.insert(Scheme::Vault, provider);
        }
        tokens.push((section.span().start, Scheme::Vault));
    }
    if let Some(section) = &file.age {
        let age = section.get_ref();
        let provider = Provider {
            kind: ProviderKind::Age {
                folder: age
                    .folder
                    .clone()
                    .unwrap_or_else(|| "/etc/larder/age".into()),
            },
            token: token(age.token.as_ref(), problems),
            ca: None,
            poll: None,
            budget: Budget {
                burst: u32::MAX,
                per_hour: u32::MAX,
            },
        };
        providers.insert(Scheme::Age, provider);
        tokens.push((section.span().start, Scheme::Age));
    }
    let mut seen: HashMap<&str, Scheme> = HashMap::new();
    for (offset, scheme) in tokens {
        let Some(provider) = providers.get(&scheme) else {
            continue;
        };
        if let Some(first) = seen.insert(&provider.token, scheme) {
            problems.at(
                offset,
                format!(
                    "the providers of {first}:// and {scheme}:// read the same credential {}: give \
                     one of them another by token =",
                    provider.token
                ),
            );
        }
    }
    providers
}

fn onepassword(
    section: &Spanned<file::OnePassword>,
    problems: &mut Problems<'_>,
) -> Option<Provider> {
    let offset = section.span().start;
    let section = section.get_ref();
    let (kind, poll, budget) = match section.kind {
        OnePasswordKind::ServiceAccount => {
            if let Some(url) = &section.url {
                problems.at(
                    url.span().start,
                    "a service account has no url: its token names the host",
                );
            }
            let hosts = section.hosts.as_ref().map_or(Vec::new(), |hosts| {
                for host in hosts.get_ref() {
                    if let Err(reason) = Origin::parse(&format!("https://{host}")) {
                        problems.at(hosts.span().start, reason);
                    }
                }
                hosts.get_ref().clone()
            });
            // All machines of an account share 1000 requests a day on small plans.
            let budget = Budget {
                burst: 60,
                per_hour: 20,
            };
            (
                ProviderKind::ServiceAccount { hosts },
                Duration::from_secs(1800),
                budget,
            )
        }
        OnePasswordKind::Connect => {
            if let Some(hosts) = &section.hosts {
                problems.at(hosts.span().start, "hosts is for service accounts only");
            }
            let Some(url) = &section.url else {
                problems.at(offset, "kind = \"connect\" needs url, where the server is");
                return None;
            };
            let origin = problems.take(url.span().start, Origin::parse(url.get_ref()))?;
            (
                ProviderKind::Connect { origin },
                Duration::from_secs(60),
                SERVER,
            )
        }
    };
    let common = file::Common {
        token: section.token.clone(),
        ca: section.ca.clone(),
        poll: section.poll.clone(),
        burst: section.burst,
        requests_per_hour: section.requests_per_hour,
    };
    Some(remote(kind, poll, budget, common, offset, problems))
}

/// What a server of one's own may be sent.
const SERVER: Budget = Budget {
    burst: 600,
    per_hour: 3600,
};

fn vault(section: &Spanned<file::Vault>, problems: &mut Problems<'_>) -> Option<Provider> {
    let offset = section.span().start;
    let section = section.get_ref();
    let login = match (section.auth, &section.role_id) {
        (VaultAuth::Token, None) => VaultLogin::Token,
        (VaultAuth::Token, Some(role)) => {
            problems.at(role.span().start, "role_id needs auth = \"approle\"");
            return None;
        }
        (VaultAuth::Approle, None) => {
            problems.at(offset, "auth = \"approle\" needs role_id");
            return None;
        }
        (VaultAuth::Approle, Some(role)) => {
            let mount = section.auth_mount.as_ref();
            VaultLogin::AppRole {
                mount: match mount {
                    Some(mount) => problems
                        .take(mount.span().start, url_path("auth_mount", mount.get_ref()))?,
                    None => "approle".into(),
                },
                role_id: role.get_ref().clone(),
            }
        }
    };
    let namespace = match &section.namespace {
        Some(namespace) => Some(problems.take(
            namespace.span().start,
            url_path("namespace", namespace.get_ref()),
        )?),
        None => None,
    };
    let origin = problems.take(
        section.url.span().start,
        Origin::parse(section.url.get_ref()),
    )?;
    let kind = ProviderKind::Vault {
        origin,
        namespace,
        login,
    };
    let common = file::Common {
        token: section.token.clone(),
        ca: section.ca.clone(),
        poll: section.poll.clone(),
        burst: section.burst,
        requests_per_hour: section.requests_per_hour,
    };
    let poll = Duration::from_secs(300);
    Some(remote(kind, poll, SERVER, common, offset, problems))
}

/// A provider over the network, with what the file says instead of the defaults.
fn remote(
    kind: ProviderKind,
    poll: Duration,
    budget: Budget,
    common: file::Common,
    offset: usize,
    problems: &mut Problems<'_>,
) -> Provider {
    let poll = match &common.poll {
        Some(text) => problems
            .take(text.span().start, duration(text.get_ref()))
            .unwrap_or(poll),
        None => poll,
    };
    let budget = Budget {
        burst: common.burst.unwrap_or(budget.burst),
        per_hour: common.requests_per_hour.unwrap_or(budget.per_hour),
    };
    // Logging in and the first fetch need about ten.
    if budget.burst < 12 || budget.per_hour == 0 {
        problems.at(
            offset,
            "burst must be at least 12 and requests_per_hour at least 1, or nothing can be fetched",
        );
    }
    if poll.as_secs() * u64::from(budget.per_hour) < 3600 {
        problems.at(
            offset,
            format!(
                "a poll every {} s needs more than {} requests_per_hour",
                poll.as_secs(),
                budget.per_hour
            ),
        );
    }
    Provider {
        kind,
        token: token(common.token.as_ref(), problems),
        ca: common.ca,
        poll: Some(poll),
        budget,
    }
}

fn token(name: Option<&Spanned<String>>, problems: &mut Problems<'_>) -> String {
    match name {
        None => TOKEN.into(),
        Some(name) => problems
            .take(name.span().start, credential_name(name.get_ref()))
            .unwrap_or_else(|| TOKEN.into()),
    }
}

fn secrets(
    file: BTreeMap<Spanned<String>, file::Secret>,
    providers: &BTreeMap<Scheme, Provider>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, Entry> {
    let mut secrets = BTreeMap::new();
    let mut taken: HashMap<Consumer, String> = HashMap::new();
    for (name, secret) in file {
        let offset = name.span().start;
        let name = name.into_inner();
        if let Err(reason) = credential_name(&name) {
            problems.at(offset, reason);
        }
        let at = secret.reference.span().start;
        let reference = problems.take(at, secret.reference.get_ref().parse::<Reference>());
        if let Some(scheme) = reference.as_ref().map(Reference::scheme)
            && !providers.contains_key(&scheme)
        {
            let section = match scheme {
                Scheme::Op => "onepassword",
                Scheme::Vault => "vault",
                Scheme::Age | Scheme::Cred => "age",
            };
            problems.at(
                at,
                format!("{scheme}:// needs a valid section [providers.{section}]"),
            );
        }
        let stale = match &secret.stale {
            Some(text) => problems.take(text.span().start, text.get_ref().parse()),
            None => Some(Staleness::Forever),
        };
        if secret.consumers.get_ref().is_empty() {
            problems.at(
                secret.consumers.span().start,
                format!("nobody gets {name}: name a consumer or leave the secret out"),
            );
        }
        let mut consumers = Vec::new();
        for consumer in secret.consumers.into_inner() {
            let at = consumer.span().start;
            let consumer = consumer.into_inner();
            let consumer = Consumer {
                credential: consumer.credential.unwrap_or_else(|| name.clone()),
                unit: consumer.unit,
            };
            if let Err(reason) = unit_name(&consumer.unit)
                .and_then(|()| credential_name(&consumer.credential).map(drop))
            {
                problems.at(at, reason);
            } else if consumer.unit.len() + consumer.credential.len() > LONGEST_PAIR {
                problems.at(
                    at,
                    format!(
                        "{consumer}: both names together are longer than {LONGEST_PAIR} bytes, \
                         which systemd cannot ask for"
                    ),
                );
            } else if let Some(other) = taken.insert(consumer.clone(), name.clone()) {
                problems.at(at, format!("{consumer} is {other} already"));
            }
            consumers.push(consumer);
        }
        if let (Some(reference), Some(stale)) = (reference, stale) {
            let entry = Entry {
                reference,
                consumers,
                on_change: secret.on_change,
                stale,
                required: secret.required,
                public: secret.public,
            };
            secrets.insert(name, entry);
        }
    }
    secrets
}

/// Name of a credential, as systemd takes it: a file name.
fn credential_name(name: &str) -> Result<String, String> {
    let valid = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c));
    if valid {
        Ok(name.into())
    } else {
        Err(format!(
            "{name:?} is no name: lower-case letters, digits and - _ . (not first), at most 64"
        ))
    }
}

/// Name of a service, as systemd takes it (systemd.unit(5)).
fn unit_name(name: &str) -> Result<(), String> {
    let stem = name.strip_suffix(".service").unwrap_or_default();
    let valid = !stem.is_empty()
        && !stem.starts_with('@')
        && stem
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b":-_.\\@".contains(&c));
    if valid {
        Ok(())
    } else {
        Err(format!("{name:?} is no service: it must end in .service"))
    }
}

/// Parts of a path in a URL that need no escaping.
fn url_path(what: &str, text: &str) -> Result<String, String> {
    let text = text.trim_matches('/');
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    let parts =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    if text.split('/').all(parts) {
        Ok(text.into())
    } else {
        Err(format!("{what} {text:?}: letters, digits and _ . - / only"))
    }
}
