//! Proxies, from apt's configuration and from the environment.
//!
//! As in apt(8), `Acquire::http::Proxy::HOST` goes before `Acquire::http::Proxy`, and that before
//! `$http_proxy`; the same for https. `DIRECT` means none, `$no_proxy` names hosts (and domains,
//! with a leading dot or without) for which the environment's proxies do not count. Supported are
//! http proxies; scripts (ProxyAutoDetect) and SOCKS are not.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::url::Url;

/// Which proxy to use for which host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// apt's settings: `http`, `https`, `http::HOST`, … → URL or `DIRECT`.
    apt: HashMap<String, String>,
    /// `http` and `https` of the environment.
    environment: HashMap<String, String>,
    no_proxy: Vec<String>,
}

impl Proxies {
    /// No proxies.
    pub fn none() -> Self {
        Self::default()
    }

    /// What `apt-config dump` (where there is an apt) and the environment say.
    pub fn discover() -> Self {
        let dump = Command::new("apt-config")
            .args(["dump", "Acquire"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let dump = match &dump {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout),
            _ => "".into(),
        };
        Self::from_settings(&dump, |name| std::env::var(name).ok())
    }

    /// From the output of `apt-config dump` and a look-up of environment variables.
    pub fn from_settings(dump: &str, environment: impl Fn(&str) -> Option<String>) -> Self {
        let mut proxies = Self::default();
        for line in dump.lines() {
            // Acquire::http::Proxy::host.example "DIRECT";
            let Some((key, value)) = line.trim_end().trim_end_matches(';').split_once(' ') else {
                continue;
            };
            let (key, value) = (key.to_ascii_lowercase(), value.trim().trim_matches('"'));
            let Some(key) = key.strip_prefix("acquire::") else {
                continue;
            };
            let Some((scheme, host)) = key.split_once("::proxy") else {
                continue;
            };
            if value.is_empty() || !matches!(scheme, "http" | "https") {
                continue;
            }
            if host.is_empty() {
                proxies.apt.insert(scheme.to_owned(), value.to_owned());
            } else if let Some(host) = host.strip_prefix("::") {
                proxies
                    .apt
                    .insert(format!("{scheme}::{host}"), value.to_owned());
            }
        }
        let set = |name: &str| environment(name).filter(|v| !v.is_empty());
        if let Some(url) = set("http_proxy") {
            proxies.environment.insert("http".to_owned(), url);
        }
        if let Some(url) = set("https_proxy").or_else(|| set("HTTPS_PROXY")) {
            proxies.environment.insert("https".to_owned(), url);
        }
        if let Some(hosts) = set("no_proxy").or_else(|| set("NO_PROXY")) {
            proxies.no_proxy = hosts
                .split([',', ' '])
                .filter(|h| !h.is_empty())
                .map(|h| {
                    h.trim_start_matches("*.")
                        .trim_start_matches('.')
                        .to_ascii_lowercase()
                })
                .collect();
        }
        proxies
    }

    /// The proxy to reach a URL by.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<Url>> {
        let scheme = if url.tls { "https" } else { "http" };
        let host = url.host_name();
        let from_apt = self
            .apt
            .get(&format!("{scheme}::{host}"))
            .or_else(|| self.apt.get(scheme));
        let proxy = match from_apt {
            Some(proxy) => proxy,
            None => match self.environment.get(scheme) {
                Some(proxy) if !self.skips(host) => proxy,
                _ => return Ok(None),
            },
        };
        if proxy.eq_ignore_ascii_case("direct") {
            return Ok(None);
        }
        let text = if proxy.contains("://") {
            proxy.clone()
        } else {
            format!("http://{proxy}")
        };
        match Url::parse(&text) {
            Ok(proxy) if !proxy.tls => Ok(Some(proxy)),
            Ok(proxy) => Err(Error::BadUrl {
                url: proxy.to_string(),
                reason: "proxies that are spoken to by TLS are not supported".to_owned(),
            }),
            Err(Error::BadUrl { url, reason }) => Err(Error::BadUrl {
                url,
                reason: format!("as a proxy: {reason}"),
            }),
            Err(other) => Err(other),
        }
    }

    fn skips(&self, host: &str) -> bool {
        self.no_proxy.iter().any(|domain| {
            domain == "*"
                || host == domain
                || host
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
        })
    }
}
