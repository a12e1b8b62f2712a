//! Where a server is.

use std::fmt;
use std::net::IpAddr;

/// Scheme, host and port of a server, without a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Parses `https://host[:port]`. `http://` is for this machine only: secrets must not cross a
    /// network in clear.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(format!("{url:?} must begin with https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(format!("{url:?} must be scheme, host and port only"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6
                    .split_once(']')
                    .ok_or_else(|| format!("{url:?} lacks a ]"))?;
                let port = match port.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if port.is_empty() => None,
                    None => return Err(format!("{url:?} has something behind its ]")),
                };
                host.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| format!("{url:?} has no IPv6 address in its brackets"))?;
                (host, port)
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(port) => match port.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(format!("{url:?} has no valid port")),
            },
        };
        let host = host.to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        if host.parse::<IpAddr>().is_err()
            && (host.len() > 253 || !host.trim_end_matches('.').split('.').all(label))
        {
            return Err(format!("{url:?} has no valid host name"));
        }
        let origin = Self { tls, host, port };
        if !tls && !origin.local() {
            return Err(format!(
                "{url:?} must begin with https://; http:// is for 127.0.0.1, ::1 and localhost only"
            ));
        }
        Ok(origin)
    }

    /// Whether it is this machine.
    fn local(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }

    /// Whether the host is given as an address, not as a name.
    pub fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// Whether TLS is spoken.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, an IPv6 one without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host, and port if it is not the scheme's, as in the `Host` header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (url, authority) in [
            ("https://my.1password.com", "my.1password.com"),
            ("https://Vault.Example:8200/", "vault.example:8200"),
            ("https://[2001:db8::1]:8200", "[2001:db8::1]:8200"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost", "localhost"),
        ] {
            assert_eq!(Origin::parse(url).unwrap().authority(), authority, "{url}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for url in [
            "",
            "vault.example",
            "ftp://vault.example",
            "http://vault.example",
            "http://10.0.0.1",
            "https://user:pass@vault.example",
            "https://vault.example/v1",
            "https://vault.example:0",
            "https://vault.example:99999",
            "https://[::1",
            "https://[vault]",
            "https://[::1]x",
            "https://a..b",
            "https://-\u{e9}.example",
            "https://",
        ] {
            assert!(Origin::parse(url).is_err(), "{url:?}");
        }
    }
}
