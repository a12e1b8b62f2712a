//! The few parts of a URL that a mirror needs; credentials are never shown.

use std::fmt;

use base64::Engine as _;

use crate::error::{Error, Result};

/// An absolute `http` or `https` URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Url {
    /// Whether TLS is used.
    pub(crate) tls: bool,
    /// Host as in the URL (an IPv6 address in brackets).
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// Path with a leading slash, and query.
    pub(crate) path: String,
    /// `Basic` credentials of the URL, encoded.
    pub(crate) authorization: Option<String>,
}

impl Url {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self> {
        let shown = || match (text.find("://"), text.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => {
                format!("{}…{}", &text[..scheme + 3], &text[at..])
            }
            _ => text.to_owned(),
        };
        let wrong = |reason: &str| Error::BadUrl {
            url: shown(),
            reason: reason.to_owned(),
        };
        if !text.contains("://") {
            return Err(wrong("not a URL such as http://HOST/debian"));
        }
        let uri: http::Uri = text
            .trim()
            .parse()
            .map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(wrong("only http and https are supported")),
            None => return Err(wrong("no scheme")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?.as_str();
        let authorization = authority.rsplit_once('@').map(|(user, _)| {
            let engine = base64::engine::general_purpose::STANDARD;
            format!("Basic {}", engine.encode(percent_decode(user)))
        });
        let host = uri
            .host()
            .filter(|h| !h.is_empty())
            .ok_or_else(|| wrong("no host"))?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: path.to_owned(),
            authorization,
        })
    }

    /// `host`, or `host:port` where the port is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// Host without the brackets of an IPv6 address.
    pub(crate) fn host_name(&self) -> &str {
        self.host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// Path without query and trailing slashes.
    pub(crate) fn folder(&self) -> &str {
        self.path
            .split('?')
            .next()
            .unwrap_or("")
            .trim_end_matches('/')
    }

    /// A file under this folder; what a URL cannot hold is percent-encoded.
    pub(crate) fn join(&self, relative: &str) -> Self {
        let mut path = format!("{}/", self.folder());
        for byte in relative.bytes() {
            match byte {
                // Everything that occurs in pool paths and that apt too leaves as it is.
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => path.push(byte.into()),
                b'/' | b'-' | b'.' | b'_' | b'~' | b':' => path.push(byte.into()),
                byte => path += &format!("%{byte:02x}"),
            }
        }
        Self {
            path,
            ..self.clone()
        }
    }

    /// Where a `Location` header leads to.
    pub(crate) fn redirect(&self, location: &str) -> Result<Self> {
        if location.contains("://") {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!(
                "{}://{rest}",
                if self.tls { "https" } else { "http" }
            ));
        }
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => {
                let (folder, _) = self.folder().rsplit_once('/').unwrap_or_default();
                format!("{folder}/{location}")
            }
        };
        let base = format!(
            "{}://{}",
            if self.tls { "https" } else { "http" },
            self.authority()
        );
        let next = Self::parse(&format!("{base}{path}"))?;
        Ok(Self {
            authorization: self.authorization.clone(),
            ..next
        })
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_but_never_shown() {
        let url = Url::parse("https://me:p%40ss@mirror.example:8443/debian/").expect("valid");
        assert_eq!(url.to_string(), "https://mirror.example:8443/debian/");
        assert_eq!(url.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        let error = Url::parse("ftp://me:secret@mirror.example/debian").expect_err("ftp");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn pool_paths_are_joined_and_encoded() {
        let url = Url::parse("http://mirror.example/debian/").expect("valid");
        assert_eq!(
            url.join("pool/main/g/g++/a_1%3a2+b1~x_all.deb").to_string(),
            "http://mirror.example/debian/pool/main/g/g%2b%2b/a_1%253a2%2bb1~x_all.deb"
        );
    }

    #[test]
    fn redirects_may_be_absolute_rooted_or_relative() {
        let url = Url::parse("http://m.example:81/a/b/c").expect("valid");
        let to = |location| url.redirect(location).expect("valid").to_string();
        assert_eq!(to("https://n.example/x?y=1"), "https://n.example/x?y=1");
        assert_eq!(to("/x"), "http://m.example:81/x");
        assert_eq!(to("x"), "http://m.example:81/a/b/x");
        assert_eq!(to("//n.example/x"), "http://n.example/x");
    }
}
