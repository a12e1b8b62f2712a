//! `configs/cache.toml`: the cache service.

use serde::{Deserialize, Serialize};

/// The file `cache.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Folder of the artifacts.
    pub storage: String,
    /// When an upload is answered.
    #[serde(default)]
    pub durability: Durability,
    /// SHA-256 (64 hex digits) of the one bearer token; the credential `larder.cache-token` wins.
    #[serde(default)]
    pub token_sha256: Option<String>,
    /// Largest Xcode CAS object in bytes.
    pub max_cas_bytes: u64,
    /// Private networks whose clients may come over plain HTTP on port 80, Tuist's excepted.
    #[serde(default)]
    pub plain_http_networks: Vec<String>,
    /// Whether Turborepo's artifacts must be signed.
    #[serde(default)]
    pub turborepo_signed_only: bool,
    /// Longest drain of running transfers at a stop, in seconds.
    pub drain_seconds: u64,
    /// Who may.
    #[serde(default)]
    pub auth: Auth,
    /// Connections.
    #[serde(default)]
    pub transport: Transport,
    /// The certificate.
    #[serde(default)]
    pub certificate: Certificate,
    /// Records of requests.
    #[serde(default)]
    pub access_log: AccessLog,
}

/// Records of requests, in a journal of their own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Namespace of the journal; empty: no records.
    pub namespace: String,
    /// Percent of the successes and misses that are written; of the rest all are.
    pub percent: f64,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            namespace: "larder-access".into(),
            percent: 10.0,
        }
    }
}

/// When an upload is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After it was written; it is durable within a second.
    #[default]
    Lazy,
    /// After it is durable.
    Ack,
}

/// Who may.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// `https://host[:port]` of the Tuist server, which knows the tokens that are not known here.
    pub server: Option<String>,
    /// PEM file of the authorities that the server's certificate must come from; none: the system's.
    pub server_ca_file: Option<String>,
    /// `iss` of JWTs.
    pub jwt_issuer: String,
    /// Algorithm of JWTs signed with the credential `jwt-secret`: HS256, HS384 or HS512.
    pub jwt_algorithm: String,
    /// Most different tokens of one source that may fail within a minute.
    pub failing_tokens: usize,
    /// Tokens of our own.
    pub tokens: Vec<Token>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            server: None,
            server_ca_file: None,
            jwt_issuer: "tuist".into(),
            jwt_algorithm: "HS512".into(),
            failing_tokens: 64,
            tokens: Vec::new(),
        }
    }
}

/// A token of our own; `appliance auth token new` makes one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What people call it.
    pub name: String,
    /// SHA-256 of the token, 64 hex digits.
    pub sha256: String,
    /// What it is for: `account/project`, `account/*` or `*`.
    pub projects: Vec<String>,
    /// Whether it may write as well as read.
    #[serde(default)]
    pub write: bool,
    /// The first day (UTC) on which it is not valid any more, `YYYY-MM-DD`; none: it has no end.
    #[serde(default)]
    pub expires: Option<String>,
}

/// Connections.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transport {
    /// Streams of one HTTP/2 connection at a time.
    pub streams: u32,
    /// Requests over one connection, which then ends well.
    pub requests: u64,
    /// Bytes of bodies that are in memory on their way to clients, all together.
    pub budget_bytes: u64,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            streams: 512,
            requests: 10_000,
            budget_bytes: 256 << 20,
        }
    }
}

/// The certificate. A static one (credentials `tls-cert` and `tls-key`) wins over ACME; until there
/// is one of either kind, a self-signed one serves.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificate {
    /// Get certificates by ACME (RFC 8555, http-01).
    pub acme: Option<Acme>,
}

/// Certificates by ACME.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// `https://` address of the authority's directory.
    pub directory: String,
    /// Whom the authority writes to, an e-mail address.
    pub contact: String,
    /// The terms of the authority are accepted; without it nothing is ordered.
    #[serde(default)]
    pub terms_accepted: bool,
    /// PEM file of the authorities that the directory's own certificate must come from; none: the
    /// system's.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// Order only when every name's DNS shows addresses of this machine. Off for machines behind
    /// address translation, whose own addresses are others.
    #[serde(default = "yes")]
    pub check_dns: bool,
}

fn yes() -> bool {
    true
}

impl Token {
    /// When it ends, in seconds since 1970. `None`: never, or it is no date.
    #[must_use]
    pub fn expires_seconds(&self) -> Option<u64> {
        seconds_of_date(self.expires.as_deref()?)
    }
}

/// Midnight UTC of `YYYY-MM-DD`, in seconds since 1970. `None`: it is no date from 1970 on.
#[must_use]
pub fn seconds_of_date(date: &str) -> Option<u64> {
    let bytes = date.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !shape {
        return None;
    }
    let number = |range: std::ops::Range<usize>| date[range].parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    if year < 1970 || !(1..=12).contains(&month) || !(1..=days[month as usize - 1]).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let months: u64 = days[..month as usize - 1].iter().sum();
    Some((years + months + day - 1) * 86_400)
}

#[cfg(test)]
mod tests {
    use super::seconds_of_date;

    #[test]
    fn durability() {
        let parsed = |line: &str| {
            let text = format!("storage = \"/cas\"\nmax_cas_bytes = 1\ndrain_seconds = 1\n{line}");
            toml::from_str::<super::Cache>(&text).map(|cache| cache.durability)
        };
        assert_eq!(parsed(""), Ok(super::Durability::Lazy));
        assert_eq!(parsed("durability = \"ack\""), Ok(super::Durability::Ack));
        assert!(parsed("durability = \"never\"").is_err());
    }

    #[test]
    fn dates() {
        assert_eq!(seconds_of_date("1970-01-01"), Some(0));
        assert_eq!(seconds_of_date("2000-03-01"), Some(951_868_800));
        assert_eq!(seconds_of_date("2026-11-25"), Some(1_795_564_800));
        assert_eq!(seconds_of_date("2024-02-29"), Some(1_709_164_800));
        for bad in [
            "",
            "2026-2-1",
            "2026-02-30",
            "2100-02-29",
            "2026-13-01",
            "2026-00-01",
            "1969-12-31",
            "2026/01/01",
            "2026-01-0x",
            "２０２6-01-01",
        ] {
            assert_eq!(seconds_of_date(bad), None, "{bad}");
        }
    }
}
