//! InRelease files: the signed list of a suite's indexes.

use crate::date;
use crate::deb822;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What a verified InRelease says. Make one only from text whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) origin: String,
    pub(crate) suite: String,
    pub(crate) codename: String,
    /// Seconds since 1970.
    pub(crate) date: u64,
    pub(crate) valid_until: Option<u64>,
    pub(crate) not_automatic: bool,
    pub(crate) by_hash: bool,
    /// Value of the field SHA256: lines of `digest size path`.
    files: String,
}

impl Release {
    /// Parses the text without its signature; `what` names it in errors.
    pub(crate) fn parse(text: &str, what: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Syntax {
            what: what.to_owned(),
            line: 1,
            reason,
        };
        let stanza = deb822::stanzas(text)
            .next()
            .ok_or_else(|| wrong("the file is empty".to_owned()))?;
        let field = |name: &str| deb822::field(stanza, name);
        let date_of = |name: &str| match field(name) {
            None => Ok(None),
            Some(value) => match date::parse(value) {
                Some(date) => Ok(Some(date)),
                None => Err(wrong(format!("{name}: `{value}` is no date in UTC"))),
            },
        };
        let yes = |name: &str| field(name).is_some_and(|v| v.eq_ignore_ascii_case("yes"));
        Ok(Self {
            origin: field("Origin").unwrap_or("").to_owned(),
            suite: field("Suite").unwrap_or("").to_owned(),
            codename: field("Codename").unwrap_or("").to_owned(),
            date: date_of("Date")?.ok_or_else(|| wrong("no Date".to_owned()))?,
            valid_until: date_of("Valid-Until")?,
            not_automatic: yes("NotAutomatic"),
            by_hash: yes("Acquire-By-Hash"),
            files: field("SHA256")
                .ok_or_else(|| wrong("no SHA256".to_owned()))?
                .to_owned(),
        })
    }

    /// Size and SHA-256 of a file that is listed.
    pub(crate) fn file(&self, path: &str) -> Option<(u64, Digest)> {
        self.files.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (digest, size, name) = (words.next()?, words.next()?, words.next()?);
            (name == path).then(|| Some((size.parse().ok()?, digest.parse().ok()?)))?
        })
    }

    /// Whether this is the suite that was asked for.
    pub(crate) fn check_suite(&self, wanted: &str, url: &str) -> Result<()> {
        if self.codename == wanted || self.suite == wanted {
            return Ok(());
        }
        Err(Error::WrongSuite {
            url: url.to_owned(),
            suite: self.suite.clone(),
            codename: self.codename.clone(),
            wanted: wanted.to_owned(),
        })
    }

    /// Valid-Until against the clock: `Ok(Some(warning))` for an expired one unless `strict`.
    pub(crate) fn check_date(&self, now: u64, strict: bool, url: &str) -> Result<Option<String>> {
        let Some(valid_until) = self.valid_until.filter(|until| *until < now) else {
            return Ok(None);
        };
        let error = Error::Expired {
            url: url.to_owned(),
            days: (now - valid_until) / 86_400,
            valid_until: date::show(valid_until),
        };
        if strict {
            Err(error)
        } else {
            Ok(Some(error.to_string()))
        }
    }
}

/// The parts of a clear-signed message (RFC 9580 section 7): text without dash escapes, each line
/// ended by `\n` (the last one not), and the armored signature.
///
/// Refuses anything before, between and after, which is what attackers add.
pub(crate) fn split_clear_signed(message: &str) -> Result<(String, String), &'static str> {
    const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
    const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
    const END: &str = "-----END PGP SIGNATURE-----";
    let mut lines = message
        .lines()
        .map(|l| l.trim_end_matches([' ', '\t', '\r']));
    if lines.next() != Some(BEGIN) {
        return Err("it does not begin with a clear-signed message");
    }
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        if !line.starts_with("Hash:") {
            return Err("an unexpected header of the clear-signed message");
        }
    }
    let mut text: Vec<&str> = Vec::new();
    let mut ended = false;
    for line in lines.by_ref() {
        if line == SIGNATURE {
            ended = true;
            break;
        }
        match line.strip_prefix("- ") {
            Some(line) => text.push(line),
            None if line.starts_with('-') => return Err("a line that begins with a dash"),
            None => text.push(line),
        }
    }
    if !ended {
        return Err("it ends without a signature");
    }
    let mut signature = format!("{SIGNATURE}\n");
    let mut closed = false;
    for line in lines {
        if closed {
            if !line.is_empty() {
                return Err("text follows the signature");
            }
            continue;
        }
        signature += line;
        signature.push('\n');
        closed = line == END;
    }
    if !closed {
        return Err("it ends within the signature");
    }
    Ok((text.join("\n"), signature))
}

/// Fuzz target: any bytes as a Release file and as a clear-signed message.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok((text, signature)) = split_clear_signed(&text) {
        assert!(signature.ends_with("-----END PGP SIGNATURE-----\n"));
        let _ = Release::parse(&text, "fuzz");
    }
    if let Ok(release) = Release::parse(&text, "fuzz") {
        let _ = release.file("main/binary-amd64/Packages.xz");
        let _ = release.check_date(u64::MAX, false, "fuzz");
    }
}
