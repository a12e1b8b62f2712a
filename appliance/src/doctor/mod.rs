//! `appliance doctor`: what is wrong with this machine, and what to do about it.

mod checks;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::files::Root;
use crate::oncall;

/// Look at everything that the service needs: disk, store, certificate, names, clock, secrets,
/// peers.
///
/// A line each, with what to do where something is wrong; fails if anything is. Changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/larder")]
    config: PathBuf,
    /// Control socket of the service
    #[arg(long, value_name = "PATH", default_value = oncall::SOCKET)]
    socket: PathBuf,
    /// Port of the service on this machine
    #[arg(long, default_value_t = 443)]
    port: u16,
}

/// How one thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// As it should be; what was seen.
    Good(String),
    /// It works, but not for long or not quite: what, and what to do.
    Doubtful(String, String),
    /// It does not work: what, and what to do.
    Bad(String, String),
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Which.
    pub(crate) what: &'static str,
    /// How it is.
    pub(crate) health: Health,
}

/// Runs `appliance doctor`.
///
/// # Errors
///
/// Something is wrong; it was printed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let findings = look(
        &Root::default(),
        &arguments.config,
        &arguments.socket,
        arguments.port,
    );
    print!("{}", table(&findings));
    let bad = |finding: &&Finding| matches!(finding.health, Health::Bad(..));
    match findings.iter().filter(bad).count() {
        0 => Ok(()),
        count => bail!("{count} things are wrong"),
    }
}

fn look(root: &Root, config: &Path, socket: &Path, port: u16) -> Vec<Finding> {
    let cache = config::Cache::load(config);
    let mut findings = vec![checks::configuration(&cache)];
    let storage = cache.as_ref().map_or("/cas", |cache| &*cache.storage);
    findings.push(checks::disk(Path::new(storage)));
    findings.push(checks::store(socket));
    findings.push(checks::service(port));
    findings.push(checks::certificate(port));
    findings.push(checks::names(root));
    findings.push(checks::clock());
    findings.push(checks::secrets());
    if let Ok(cache) = &cache {
        findings.push(checks::server(cache));
    }
    findings
}

/// A line a finding, and what to do below.
fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { what, health } in findings {
        let (word, seen, remedy) = match health {
            Health::Good(seen) => ("ok", seen, None),
            Health::Doubtful(seen, remedy) => ("look", seen, Some(remedy)),
            Health::Bad(seen, remedy) => ("BAD", seen, Some(remedy)),
        };
        text += &format!("{word:4} {what:13} {seen}\n");
        if let Some(remedy) = remedy {
            text += &format!("                   -> {remedy}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let findings = [
            Finding {
                what: "disk",
                health: Health::Good("/cas: 10 GiB free".into()),
            },
            Finding {
                what: "clock",
                health: Health::Doubtful("not synchronised".into(), "open UDP 123".into()),
            },
            Finding {
                what: "store",
                health: Health::Bad("unusable".into(), "see the journal".into()),
            },
        ];
        assert_eq!(
            table(&findings),
            "ok   disk          /cas: 10 GiB free\n\
             look clock         not synchronised\n                   -> open UDP 123\n\
             BAD  store         unusable\n                   -> see the journal\n"
        );
    }

    #[test]
    fn a_machine_without_anything_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nothing");
        let root = Root::new(folder.path());
        // A port that nobody listens on: of a socket that was closed.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = port.local_addr().unwrap().port();
        drop(port);
        let findings = look(&root, &nowhere, &nowhere, number);
        for wanted in ["configuration", "store", "service", "certificate"] {
            let found = findings
                .iter()
                .find(|finding| finding.what == wanted)
                .unwrap();
            assert!(matches!(found.health, Health::Bad(..)), "{found:?}");
        }
    }
}
