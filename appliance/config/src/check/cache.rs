//! `cache.toml`.

use crate::Cache;
use crate::load::{File, Report, place};

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
    }
}
