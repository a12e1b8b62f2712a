//! `appliance secrets status`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use secrets::fetcher::Status;
use secrets::refresh::{Client, SOCKET};

/// Show how each secret is: never its value.
///
/// Fails if a secret is missing that a unit needs.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Socket of the service
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status =
        runtime.block_on(async { Client::connect(&arguments.socket).await?.status().await })?;
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&status).context("cannot write JSON")?
        );
    } else {
        print!("{}", table(&status));
    }
    let missing = |state: &str| matches!(state, "missing" | "stale");
    let needed = status
        .secrets
        .iter()
        .filter(|secret| secret.required && missing(&secret.state));
    match needed.count() {
        0 => Ok(()),
        count => bail!("{count} of the secrets that units need are missing"),
    }
}

/// A line a secret, and what is wrong with it below.
fn table(status: &Status) -> String {
    let widest = |length: fn(&secrets::fetcher::SecretStatus) -> usize| {
        status.secrets.iter().map(length).max().unwrap_or_default()
    };
    let (name, state) = (widest(|s| s.name.len()), widest(|s| s.state.len()));
    let mut text = String::new();
    for secret in &status.secrets {
        let age = secret.age.map_or("-".into(), |age| format!("{age} s"));
        text += &format!(
            "{:name$}  {:state$}  {age:>8}  {} ({})\n",
            secret.name, secret.state, secret.reference, secret.provider
        );
        if let Some(message) = &secret.message {
            text += &format!("{:name$}  {message}\n", "");
        }
    }
    for provider in &status.providers {
        text += &format!(
            "{}: {} requests left for now\n",
            provider.provider, provider.budget
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrets::Class;
    use secrets::fetcher::{ProviderStatus, SecretStatus};

    #[test]
    fn a_table() {
        let secret = |name: &str, state: &str, age| SecretStatus {
            name: name.into(),
            reference: format!("op://cache/Service/{name}"),
            provider: "1Password Connect".into(),
            state: state.into(),
            age,
            required: true,
            error: None,
            message: None,
        };
        let mut broken = secret("loki-password", "missing", None);
        broken.error = Some(Class::Missing);
        broken.message = Some("op://cache/Service/loki-password: no such field (missing)".into());
        let status = Status {
            time: 1_800_000_000,
            served: Default::default(),
            secrets: vec![secret("jwt", "last-known-good", Some(4000)), broken],
            providers: vec![ProviderStatus {
                provider: "1Password Connect".into(),
                budget: 599,
                requests: 1,
            }],
        };
        insta::assert_snapshot!(table(&status));
    }
}
