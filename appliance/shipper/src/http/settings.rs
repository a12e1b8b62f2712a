//! What a client is told: where, as whom, and through what.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrets::Secret;
use zeroize::Zeroizing;

/// Largest credential in bytes.
const CREDENTIAL: u64 = 64 * 1024;

/// What is wrong with the settings of a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("{0} is not an address of a receiver: {1}; it should look like https://host/path")]
    Address(String, &'static str),
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A credential is not usable.
    #[error("the credential {0} {1}")]
    Credential(PathBuf, &'static str),
    /// The certificates of the authorities cannot be used.
    #[error("{0}: {1}")]
    Certificates(String, String),
}

/// A value that is not for every eye.
#[derive(Clone, Debug)]
pub enum Value {
    /// In a file, read at every request, so that a new one is used at once and none is kept.
    File(PathBuf),
    /// In locked memory, under its name.
    Held(String, Arc<Secret>),
}

impl Value {
    /// Its text without the white space around it.
    ///
    /// # Errors
    ///
    /// It cannot be read, is empty, too large or no text.
    pub fn text(&self) -> Result<Zeroizing<String>, Error> {
        match self {
            Self::File(path) => credential(path),
            Self::Held(name, secret) => text(secret.expose(), Path::new(name)),
        }
    }

    /// How it is called, for messages.
    fn name(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Held(name, _) => Path::new(name),
        }
    }
}

/// As whom requests are sent.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// As nobody.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// The user name.
        user: Value,
        /// The password.
        password: Value,
    },
    /// A bearer token.
    Bearer(Value),
}

impl Credentials {
    /// The value of the header `Authorization`, marked as sensitive.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, Error> {
        let (header, value) = match self {
            Self::None => return Ok(None),
            Self::Basic { user, password } => {
                let pair = Zeroizing::new(format!("{}:{}", *user.text()?, *password.text()?));
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*pair));
                (Zeroizing::new(format!("Basic {}", *encoded)), password)
            }
            Self::Bearer(token) => {
                let text = token.text()?;
                (Zeroizing::new(format!("Bearer {}", *text)), token)
            }
        };
        let mut header = HeaderValue::from_str(&header).map_err(|_| {
            let reason = "has characters that a header cannot have";
            Error::Credential(value.name().into(), reason)
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Reads a credential: text without the white space around it.
///
/// # Errors
///
/// It cannot be read, is empty, too large or no text.
pub(super) fn credential(path: &Path) -> Result<Zeroizing<String>, Error> {
    use std::io::Read;
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(CREDENTIAL + 1).read_to_end(&mut bytes));
    read.map_err(|error| Error::File(path.into(), error))?;
    text(&bytes, path)
}

fn text(bytes: &[u8], name: &Path) -> Result<Zeroizing<String>, Error> {
    let refuse = |reason| Err(Error::Credential(name.into(), reason));
    if bytes.len() as u64 > CREDENTIAL {
        return refuse("is larger than 64 KiB");
    }
    match std::str::from_utf8(bytes).map(str::trim) {
        Err(_) => refuse("is no text"),
        Ok("") => refuse("is empty"),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
    }
}

/// Everything that a client is told.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where requests go.
    pub(super) url: Uri,
    /// As whom.
    pub credentials: Credentials,
    /// The proxy, `http://host:port`.
    pub(super) proxy: Option<Uri>,
    /// Headers of every request, by lower-case name.
    pub headers: Vec<(&'static str, HeaderValue)>,
    /// For the connection, TLS included.
    pub connect_timeout: Duration,
    /// For a request and its answer.
    pub timeout: Duration,
    /// Not reading the answer of a server that has nothing to do with us.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl ClientSettings {
    /// A client for an address. One without a path gets `path`. `ca` is a PEM file of authorities
    /// that are trusted instead of the system's. `plain` allows credentials over plain HTTP to
    /// other machines.
    ///
    /// # Errors
    ///
    /// The address, the proxy or the certificates are not usable.
    pub fn new(
        url: &str,
        path: &str,
        credentials: Credentials,
        ca: Option<&Path>,
        proxy: Option<&str>,
        plain: bool,
    ) -> Result<Self, Error> {
        let mut uri = address(url)?;
        if uri.path() == "/" && uri.query().is_none() {
            uri = format!("{}{path}", url.trim_end_matches('/'))
                .parse()
                .map_err(|_| Error::Address(url.into(), "it is no URL"))?;
        }
        let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if !secure && !here && !plain && !matches!(credentials, Credentials::None) {
            let reason = "credentials are only sent over https (allow_plain_http permits it)";
            return Err(Error::Address(url.into(), reason));
        }
        let proxy = proxy.map(address).transpose()?;
        if proxy
            .as_ref()
            .is_some_and(|proxy| proxy.scheme() != Some(&http::uri::Scheme::HTTP))
        {
            let reason = "a proxy is spoken to over http";
            return Err(Error::Address(
                proxy.map(|uri| uri.to_string()).unwrap_or_default(),
                reason,
            ));
        }
        let tls = if secure {
            Some(Arc::new(tls(ca)?))
        } else {
            None
        };
        Ok(Self {
            url: uri,
            credentials,
            proxy,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            tls,
        })
    }
}

/// An absolute http or https address without user information.
fn address(text: &str) -> Result<Uri, Error> {
    // What is wrong is not shown with the address if that may hold a password.
    let refuse = |reason| {
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        Err(Error::Address(shown.into(), reason))
    };
    let Ok(uri) = text.parse::<Uri>() else {
        return refuse("it is no URL");
    };
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS)
        && uri.scheme() != Some(&http::uri::Scheme::HTTP)
    {
        return refuse("it is neither http nor https");
    }
    if uri.host().is_none_or(str::is_empty) {
        return refuse("it names no host");
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return refuse("credentials do not belong into it");
    }
    Ok(uri)
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let shown = || path.display().to_string();
            let broken = |error: rustls::pki_types::pem::Error| {
                Error::Certificates(shown(), error.to_string())
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(broken)? {
                let added = roots.add(certificate.map_err(broken)?);
                added.map_err(|error| Error::Certificates(shown(), error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(Error::Certificates(shown(), "holds no certificate".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let reason = "there are none; install ca-certificates or name a ca_file";
                return Err(Error::Certificates(
                    "the system's certificates".into(),
                    reason.into(),
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Certificates("TLS".into(), error.to_string()))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, credentials: Credentials) -> Result<ClientSettings, Error> {
        ClientSettings::new(url, "/push", credentials, None, None, false)
    }

    #[test]
    fn addresses() {
        let url = |text| settings(text, Credentials::None).unwrap().url.to_string();
        assert_eq!(url("http://127.0.0.1:1"), "http://127.0.0.1:1/push");
        assert_eq!(url("http://127.0.0.1:1/"), "http://127.0.0.1:1/push");
        assert_eq!(url("http://h/other/path"), "http://h/other/path");
        for bad in [
            "",
            "h",
            "ftp://h/",
            "http:///x",
            "http://u:hunter2@h/",
            "http://a b/",
        ] {
            let error = settings(bad, Credentials::None).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_stay_off_open_wires() {
        let token = || Credentials::Bearer(Value::File("/x".into()));
        assert!(settings("http://example.org/", token()).is_err());
        assert!(settings("http://127.0.0.1/", token()).is_ok());
        assert!(settings("http://[::1]:5/", token()).is_ok());
        assert!(ClientSettings::new("http://example.org", "/", token(), None, None, true).is_ok());
    }

    fn held(value: &str) -> Arc<Secret> {
        Arc::new(Secret::copy_of(value.as_bytes()).unwrap())
    }

    #[test]
    fn credentials_are_trimmed_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let header = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            Credentials::Bearer(Value::File(path.clone())).header()
        };
        let value = header(b" abc\n").unwrap().unwrap();
        assert_eq!(value, "Bearer abc");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("abc"));
        for bad in [&b""[..], b"\n", b"\xff", b"a\nb", &[b'x'; 70_000]] {
            assert!(header(bad).is_err());
        }
        let basic = Credentials::Basic {
            user: Value::File(path.clone()),
            password: Value::Held("loki-password".into(), held("u")),
        };
        std::fs::write(&path, "u").unwrap();
        assert_eq!(basic.header().unwrap().unwrap(), "Basic dTp1");
        let bad = Credentials::Bearer(Value::Held("loki-token".into(), held("a\nb")));
        let error = bad.header().unwrap_err().to_string();
        assert!(
            error.contains("loki-token") && !format!("{bad:?}").contains("a\\nb"),
            "{error}"
        );
    }

    #[test]
    fn authorities_of_ones_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = tls(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("ca.pem"), "{error}");
        }
        let own = rcgen::generate_simple_self_signed(["example.org".into()]).unwrap();
        std::fs::write(&path, own.cert.pem()).unwrap();
        tls(Some(&path)).unwrap();
    }
}
