//! `cache.toml`.

use crate::Cache;
use crate::cache::{Acme, Auth, Token, Transport};
use crate::load::{File, Report, Step, place};

/// SHA-256 of nothing: what `printf '' | sha256sum` gives.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Longest drain: the unit stops after 150 s.
const DRAIN: u64 = 120;
/// Objects are checked in memory and on disk before they are published.
const LARGEST: u64 = 1 << 30;

impl File for Cache {
    const NAME: &'static str = "cache.toml";

    fn check(&self, report: &mut Report) {
        let below = self.storage == "/cas" || self.storage.starts_with("/cas/");
        let folder = self.storage.split('/').skip(1).all(|part| {
            !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control)
        });
        if !below || !folder {
            report.wrong(
                place!["storage"],
                format!("{:?} is not below /cas", self.storage),
                "\"/cas\", the only place that the service may write to",
            );
        }
        if let Some(digits) = &self.token_sha256 {
            let hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hex {
                // Not the value itself: it may be the token.
                report.wrong(
                    place!["token_sha256"],
                    "this is no SHA-256",
                    "64 hexadecimal digits: printf %s TOKEN | sha256sum",
                );
            } else if digits.eq_ignore_ascii_case(NOTHING) {
                report.wrong(
                    place!["token_sha256"],
                    "this is the SHA-256 of an empty token",
                    "that of a token: printf %s TOKEN | sha256sum",
                );
            }
        }
        if self.max_cas_bytes == 0 || self.max_cas_bytes > LARGEST {
            report.wrong(
                place!["max_cas_bytes"],
                format!("{} is out of range", self.max_cas_bytes),
                format!("1 to {LARGEST} bytes; clients expect 26214400 (25 MiB)"),
            );
        }
        if self.drain_seconds == 0 || self.drain_seconds > DRAIN {
            report.wrong(
                place!["drain_seconds"],
                format!("{} is out of range", self.drain_seconds),
                format!("1 to {DRAIN}"),
            );
        }
        auth(&self.auth, report);
        transport(&self.transport, report);
        let namespace = &self.access_log.namespace;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if namespace.len() > 64 || !namespace.chars().all(plain) {
            report.wrong(
                place!["access_log", "namespace"],
                format!("{namespace:?} is no name of a journal"),
                "letters, digits, - and _, such as \"larder-access\", or \"\" for none",
            );
        }
        if !(0.0..=100.0).contains(&self.access_log.percent) {
            report.wrong(
                place!["access_log", "percent"],
                format!("{} percent", self.access_log.percent),
                "0 to 100",
            );
        }
        if let Some(acme) = &self.certificate.acme {
            certificate(acme, report);
        }
    }
}

fn auth(auth: &Auth, report: &mut Report) {
    if let Some(server) = &auth.server {
        https(place!["auth", "server"], server, false, report);
    }
    if !["HS256", "HS384", "HS512"].contains(&&*auth.jwt_algorithm) {
        report.wrong(
            place!["auth", "jwt_algorithm"],
            format!(
                "{:?} is no algorithm of a shared secret",
                auth.jwt_algorithm
            ),
            "\"HS256\", \"HS384\" or \"HS512\", as the server signs",
        );
    }
    if !(1..=100_000).contains(&auth.failing_tokens) {
        report.wrong(
            place!["auth", "failing_tokens"],
            format!("{} is out of range", auth.failing_tokens),
            "1 to 100000",
        );
    }
    for (at, token) in auth.tokens.iter().enumerate() {
        let hex = token.sha256.len() == 64 && token.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex || token.sha256.eq_ignore_ascii_case(NOTHING) {
            // Not the value itself: it may be the token.
            report.wrong(
                place!["auth", "tokens", at, "sha256"],
                "this is no SHA-256 of a token",
                "what `appliance auth token new` prints: 64 hexadecimal digits",
            );
        }
        if token.name.is_empty() || token.name.len() > 255 || token.name.contains(char::is_control)
        {
            report.wrong(
                place!["auth", "tokens", at, "name"],
                format!("{:?} is no name", token.name),
                "text that says whose token it is",
            );
        }
        for (which, project) in token.projects.iter().enumerate() {
            let part = |part: &str, star: bool| {
                (star && part == "*")
                    || (!["", ".", ".."].contains(&part)
                        && part
                            .bytes()
                            .all(|b| b.is_ascii_graphic() && !b"/\\%*".contains(&b)))
            };
            let whole = project == "*"
                || project
                    .split_once('/')
                    .is_some_and(|(account, name)| part(account, false) && part(name, true));
            if !whole {
                report.wrong(
                    place!["auth", "tokens", at, "projects", which],
                    format!("{project:?} names no project"),
                    "\"account/project\", \"account/*\" or \"*\"",
                );
            }
        }
        if token.projects.is_empty() {
            report.wrong(
                place!["auth", "tokens", at, "projects"],
                "a token for nothing",
                "[\"account/project\"]",
            );
        }
        if token.expires.is_some() && token.expires_seconds().is_none() {
            report.wrong(
                place!["auth", "tokens", at, "expires"],
                "this is no date",
                "\"YYYY-MM-DD\", the first day on which the token is not valid any more",
            );
        }
        let same = |other: &Token| other.sha256.eq_ignore_ascii_case(&token.sha256);
        if auth.tokens[..at].iter().any(same) {
            report.wrong(
                place!["auth", "tokens", at, "sha256"],
                "this token is there twice",
                "one table a token",
            );
        }
    }
}

fn transport(transport: &Transport, report: &mut Report) {
    for (name, value, range, why) in [
        (
            "streams",
            u64::from(transport.streams),
            1..=10_000,
            "1 to 10000",
        ),
        (
            "requests",
            transport.requests,
            1..=1_000_000_000,
            "1 to 1000000000",
        ),
        (
            "budget_bytes",
            transport.budget_bytes,
            (16 << 20)..=(64 << 30),
            "16777216 (16 MiB) to 68719476736 (64 GiB)",
        ),
    ] {
        if !range.contains(&value) {
            report.wrong(
                place!["transport", name],
                format!("{value} is out of range"),
                why,
            );
        }
    }
}

fn certificate(acme: &Acme, report: &mut Report) {
    https(
        place!["certificate", "acme", "directory"],
        &acme.directory,
        true,
        report,
    );
    let named = acme
        .contact
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && host.contains('.') && !host.contains('@'));
    if !named
        || acme
            .contact
            .contains(|c: char| c.is_whitespace() || c.is_control() || c == ',')
    {
        report.wrong(
            place!["certificate", "acme", "contact"],
            format!("{:?} is no e-mail address", acme.contact),
            "where the authority writes when something is wrong, such as \"ops@example.org\"",
        );
    }
    if !acme.terms_accepted {
        report.wrong(
            place!["certificate", "acme", "terms_accepted"],
            "the authority's terms are not accepted",
            "read them, then `true`",
        );
    }
}

/// An address of a server: https, or http on this machine; with a path only where one belongs.
fn https(place: Vec<Step>, url: &str, path: bool, report: &mut Report) {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (authority, below) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    if (scheme != "https" && !(scheme == "http" && local))
        || authority.is_empty()
        || authority.contains('@')
        || (!path && !below.is_empty())
        || url.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        report.wrong(
            place,
            "this is no address that credentials may be sent to",
            if path {
                "\"https://host/path\""
            } else {
                "\"https://host\", without a path"
            },
        );
    }
}
