//! `appliance auth`: tokens of our own.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// State folder of the cache service.
const STATE: &str = "/var/lib/larder/cache";
/// What our tokens begin with, so that scanners of leaked secrets can tell them.
const PREFIX: &str = "larder_";

/// Tokens that clients of the cache show.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token.
    #[command(subcommand)]
    Token(Token),
    Revoke(Revoke),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    New(New),
}

/// Make a token of 256 random bits and print it once, with the lines for cache.toml.
///
/// Only its SHA-256 goes into the configuration; the token itself is kept nowhere:
///
///     appliance auth token new --name ci --project acme/ios --write --expires 2027-06-01
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct New {
    /// What people call it; shown with what it writes
    #[arg(long, value_name = "NAME")]
    name: String,
    /// account/project, account/* or *; may be repeated
    #[arg(long = "project", value_name = "PROJECT", required = true)]
    projects: Vec<String>,
    /// It may write as well as read
    #[arg(long)]
    write: bool,
    /// The first day (UTC) on which it is not valid any more
    #[arg(long, value_name = "YYYY-MM-DD")]
    expires: Option<String>,
}

/// Refuse a token on this machine from now on, of whatever kind it is.
///
/// The running service takes it within a second; whatever the token's issuer says, it stays refused.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The fingerprint that logs and records show (16 hex digits), or the token's SHA-256 (64)
    #[arg(value_name = "FINGERPRINT")]
    token: String,
    /// Why, for whoever reads the list later
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// State folder of the cache service
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
}

/// Runs a command.
pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Token(Token::New(arguments)) => {
            let random = random()?;
            let text = new(arguments, &random)?;
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())
                .context("cannot print the token")
        }
        Command::Revoke(arguments) => revoke(arguments),
    }
}

fn random() -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    let mut got = 0;
    while got < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        got += rustix::rand::getrandom(&mut bytes[got..], flags).context("no random bytes")?;
    }
    Ok(bytes)
}

/// The token and what belongs into the configuration.
fn new(arguments: &New, random: &[u8; 32]) -> anyhow::Result<Zeroizing<String>> {
    let token = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)));
    let digest = Sha256::digest(token.as_bytes());
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let projects: Vec<_> = arguments.projects.iter().map(|text| quoted(text)).collect();
    let mut entry = format!(
        "[[auth.tokens]]\nname = {}\nsha256 = \"{sha256}\"\nprojects = [{}]\nwrite = {}\n",
        quoted(&arguments.name),
        projects.join(", "),
        arguments.write
    );
    if let Some(expires) = &arguments.expires {
        if config::seconds_of_date(expires).is_none() {
            bail!("{expires:?} is no date; dates look like 2027-06-01");
        }
        entry += &format!("expires = \"{expires}\"\n");
    }
    // Whatever the service would refuse is refused here.
    let whole = format!("storage = \"/cas\"\nmax_cas_bytes = 1\ndrain_seconds = 1\n{entry}");
    config::Cache::parse("the new token".as_ref(), &whole).context("such a token is refused")?;
    Ok(Zeroizing::new(format!(
        "# The token; it is shown only now:\n{}\n\n# For cache.toml (fingerprint {}):\n{entry}",
        *token,
        &sha256[..16]
    )))
}

fn revoke(arguments: &Revoke) -> anyhow::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.unwrap_or(Duration::ZERO).as_secs();
    let revoked = cache::revoke(&arguments.state, &arguments.token, now, &arguments.why);
    revoked.with_context(|| {
        format!(
            "cannot revoke it in {}: does the service run on this machine, and is this root?",
            arguments.state.display()
        )
    })?;
    log::info!("revoked; the service refuses it within a second");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(project: &str, expires: Option<&str>) -> New {
        New {
            name: "ci \"one\"".into(),
            projects: vec![project.into()],
            write: true,
            expires: expires.map(Into::into),
        }
    }

    #[test]
    fn what_is_printed_is_what_the_service_takes() {
        let text = new(&arguments("acme/ios", Some("2027-06-01")), &[7; 32]).unwrap();
        let token = text.lines().nth(1).unwrap();
        assert_eq!(token.len(), PREFIX.len() + 43);
        let entry = &text[text.find("[[auth").unwrap()..];
        let whole = format!("storage = \"/cas\"\nmax_cas_bytes = 1\ndrain_seconds = 1\n{entry}");
        let config = config::Cache::parse("cache.toml".as_ref(), &whole).unwrap();
        let [made] = &config.auth.tokens[..] else {
            panic!("{config:?}");
        };
        let hash = cache::TokenHash::from_hex(&made.sha256);
        assert_eq!(hash, cache::TokenHash::of_token(token.as_bytes()));
        assert_eq!(made.name, "ci \"one\"");
        assert!(made.write && made.expires_seconds().is_some());
        assert_ne!(*random().unwrap(), *random().unwrap());
    }

    #[test]
    fn what_the_service_would_refuse_is_not_made() {
        for project in ["acme", "../x", "*/x", ""] {
            assert!(
                new(&arguments(project, None), &[7; 32]).is_err(),
                "{project}"
            );
        }
        assert!(new(&arguments("a/b", Some("tomorrow")), &[7; 32]).is_err());
    }
}
