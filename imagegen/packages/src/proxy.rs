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

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy that is used for a URL.
    fn used(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url).expect("valid");
        proxies.of(&url).expect("valid").map(|p| p.to_string())
    }

    #[test]
    fn apt_goes_before_the_environment_and_hosts_before_all() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://apt.example:3128/\";\nAcquire::http::Proxy::direct.example \"DIRECT\";\n\
            Acquire::https::Proxy::own.example \"http://own-proxy.example\";\nAcquire::http::ProxyAutoDetect \"/bin/true\";\n";
        let environment = |name: &str| match name {
            "http_proxy" => Some("http://env.example:8080".to_owned()),
            "https_proxy" => Some("env.example:8081".to_owned()),
            "no_proxy" => Some("localhost, .internal.example,*.corp.example".to_owned()),
            _ => None,
        };
        let both = Proxies::from_settings(dump, environment);
        let of = |url| used(&both, url);
        assert_eq!(
            of("http://m.example/debian").as_deref(),
            Some("http://apt.example:3128/")
        );
        assert_eq!(of("http://direct.example/debian"), None);
        assert_eq!(
            of("https://own.example/debian").as_deref(),
            Some("http://own-proxy.example/")
        );
        assert_eq!(
            of("https://m.example/debian").as_deref(),
            Some("http://env.example:8081/")
        );
        assert_eq!(of("https://a.internal.example/debian"), None);
        assert_eq!(of("https://x.corp.example/debian"), None);
        assert_eq!(
            of("https://notinternal.example/debian").as_deref(),
            Some("http://env.example:8081/")
        );
        assert_eq!(
            used(&Proxies::from_settings("", |_| None), "http://m.example/"),
            None
        );
    }

    #[test]
    fn proxies_that_cannot_be_spoken_to_are_named() {
        for wrong in ["https://secure.example", "socks5h://localhost:9050"] {
            let proxies =
                Proxies::from_settings(&format!("Acquire::http::Proxy \"{wrong}\";"), |_| None);
            let error = proxies
                .of(&Url::parse("http://m.example/").expect("valid"))
                .expect_err(wrong);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
