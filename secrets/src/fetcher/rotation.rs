//! What happens to consumers when their secrets change: one action a unit, in the order of the
//! manifest, not too often.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Inner;
use super::state::Served;
use crate::manifest::OnChange;
use crate::transport::Pending;

/// Restarts and reloads units.
pub trait Units: Send + Sync {
    /// Does it, and waits until it is done. A unit that is not active stays so.
    fn act<'a>(&'a self, unit: &'a str, action: OnChange) -> Pending<'a, Result<(), String>>;
}

/// `systemctl`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Systemctl;

/// A stop may drain connections for two minutes.
const TIMEOUT: Duration = Duration::from_secs(240);

impl Units for Systemctl {
    fn act<'a>(&'a self, unit: &'a str, action: OnChange) -> Pending<'a, Result<(), String>> {
        Box::pin(async move {
            let verb = match action {
                OnChange::None => return Ok(()),
                OnChange::Reload => "try-reload-or-restart",
                OnChange::Restart => "try-restart",
            };
            let child = tokio::process::Command::new("systemctl")
                .args([verb, "--", unit])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .output();
            let output = tokio::time::timeout(TIMEOUT, child)
                .await
                .map_err(|_| format!("systemctl {verb} took longer than {} s", TIMEOUT.as_secs()))?
                .map_err(|error| format!("cannot run systemctl: {error}"))?;
            if output.status.success() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&output.stderr);
            let text = text.lines().next().unwrap_or_default();
            Err(format!("systemctl {verb}: {text} ({})", output.status))
        })
    }
}

/// Acts on what the workers report. Ends with the fetcher.
pub(super) fn start(
    inner: Weak<Inner>,
    units: Arc<dyn Units>,
    mut changed: mpsc::UnboundedReceiver<String>,
) {
    tokio::spawn(async move {
        let mut last: BTreeMap<String, Instant> = BTreeMap::new();
        while let Some(first) = changed.recv().await {
            let mut names = vec![first];
            let Some(quiesce) = inner.upgrade().map(|inner| inner.patience.quiesce) else {
                return;
            };
            // What belongs together comes together, such as a certificate and its key.
            tokio::time::sleep(quiesce).await;
            while let Ok(name) = changed.try_recv() {
                names.push(name);
            }
            let Some((due, between)) = inner
                .upgrade()
                .map(|inner| (inner.affected(&names), inner.patience.between_actions))
            else {
                return;
            };
            for (unit, action) in due {
                if let Some(last) = last.get(&unit) {
                    tokio::time::sleep_until(*last + between).await;
                }
                log::info!("{unit}: its secrets have changed: {action:?}");
                if let Err(error) = units.act(&unit, action).await {
                    log::error!(
                        "{unit} goes on with secrets that have changed: {error}; restart it by hand"
                    );
                }
                last.insert(unit, Instant::now());
            }
        }
    });
}

impl Inner {
    /// Units that were given something else than what is there now, and what to do to them.
    fn affected(&self, names: &[String]) -> Vec<(String, OnChange)> {
        let table = self.table();
        let mut due: Vec<(String, OnChange)> = Vec::new();
        for (name, entry) in &self.manifest.secrets {
            if !names.contains(name) || entry.on_change == OnChange::None {
                continue;
            }
            let current = table.secrets[name].value.as_ref().map(|value| value.serial);
            for consumer in &entry.consumers {
                let outdated = match table.served.get(consumer) {
                    // It has not started yet.
                    None => false,
                    Some(Served::Nothing) => current.is_some(),
                    Some(Served::Value(serial)) => current != Some(*serial),
                };
                if !outdated {
                    continue;
                }
                match due.iter_mut().find(|(unit, _)| *unit == consumer.unit) {
                    Some((_, action)) => *action = (*action).max(entry.on_change),
                    None => due.push((consumer.unit.clone(), entry.on_change)),
                }
            }
        }
        due
    }
}
