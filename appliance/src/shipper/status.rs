//! `appliance shipper status`, and what the service writes for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use shipper::Status;

use crate::files;

/// File of the status, below the runtime directory of the unit.
const STATUS: &str = "status.json";
/// Its folder, when the status is asked for by hand.
const RUNTIME: &str = "/run/larder-shipper";
/// A status that is older than this is of a service that hangs or has ended, in seconds.
const FRESH: i64 = 60;

/// Show what is shipped, what waits and what is wrong; fails if something is.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowStatus {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Folder of the status
    #[arg(long, value_name = "DIR", default_value = RUNTIME)]
    runtime: PathBuf,
}

/// Writes the status into the folder for [`show`].
pub(super) fn write(folder: &Path, status: &Status) -> anyhow::Result<()> {
    let path = folder.join(STATUS);
    let new = folder.join("status.json.new");
    std::fs::write(&new, serde_json::to_vec(status)?)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
    Ok(std::fs::rename(new, path)?)
}

/// One line for `systemctl status`.
pub(super) fn summary(status: &Status) -> String {
    let metrics = &status.metrics;
    let problems = status.logs.iter().map(|log| &log.problem);
    let problems = problems.chain([&metrics.problem]);
    let problems: Vec<_> = problems
        .filter(|text| !text.is_empty())
        .map(String::as_str)
        .collect();
    if !problems.is_empty() {
        return problems.join("; ");
    }
    if !metrics.configured && status.logs.iter().all(|log| !log.configured) {
        return "no receiver is configured".into();
    }
    let shipped: u64 = status.logs.iter().map(|log| log.shipped).sum();
    format!("{shipped} lines and {} samples shipped", metrics.samples)
}

/// Runs `appliance shipper status`.
///
/// # Errors
///
/// Something is wrong, or the status cannot be read.
pub(super) fn show(arguments: &ShowStatus) -> anyhow::Result<()> {
    let path = arguments.runtime.join(STATUS);
    let text = files::read(&path)?;
    let text = text.with_context(|| {
        format!(
            "{} is missing; is larder-shipper.service running?",
            path.display()
        )
    })?;
    let status: Status =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", table(&status));
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let age = now as i64 - status.time;
    if age > FRESH {
        bail!("this is {age} s old; is larder-shipper.service running?");
    }
    let wrong = status.logs.iter().any(|log| !log.problem.is_empty());
    if wrong || !status.metrics.problem.is_empty() {
        bail!("not everything is shipped");
    }
    Ok(())
}

fn table(status: &Status) -> String {
    let mut out = String::new();
    let line = |what: String, configured: bool, counts: String, problem: &str| {
        let counts = if configured {
            counts
        } else {
            "no receiver is configured".into()
        };
        let problem = match problem {
            "" => String::new(),
            text => format!("  {text}\n"),
        };
        format!("{what}: {counts}\n{problem}")
    };
    for log in &status.logs {
        let counts = format!(
            "{} lines shipped, {} lost, {} s behind",
            log.shipped, log.lost, log.behind_seconds
        );
        out += &line(
            format!("logs {}", log.journal),
            log.configured,
            counts,
            &log.problem,
        );
    }
    let metrics = &status.metrics;
    let counts = format!(
        "{} samples shipped, {} lost, {} scrapes waiting",
        metrics.samples, metrics.lost, metrics.waiting
    );
    out + &line(
        "metrics".into(),
        metrics.configured,
        counts,
        &metrics.problem,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_in_words() {
        let mut status = Status::default();
        status.logs.push(shipper::LogStatus {
            journal: "system".into(),
            configured: true,
            shipped: 7,
            lost: 1,
            behind_seconds: 3,
            problem: String::new(),
        });
        assert_eq!(summary(&status), "7 lines and 0 samples shipped");
        status.metrics.configured = true;
        status.metrics.problem = "metrics wait: network".into();
        assert_eq!(summary(&status), "metrics wait: network");
        assert_eq!(
            table(&status),
            "logs system: 7 lines shipped, 1 lost, 3 s behind\n\
             metrics: 0 samples shipped, 0 lost, 0 scrapes waiting\n  metrics wait: network\n"
        );
    }

    #[test]
    fn a_machine_that_ships_nowhere_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut status = Status {
            time: time.unwrap().as_secs() as i64,
            ..Status::default()
        };
        status.logs.push(shipper::LogStatus::default());
        assert_eq!(summary(&status), "no receiver is configured");
        write(folder.path(), &status).unwrap();
        let arguments = ShowStatus {
            json: false,
            runtime: folder.path().into(),
        };
        show(&arguments).unwrap();
        status.logs[0].problem = "a problem".into();
        write(folder.path(), &status).unwrap();
        assert!(show(&arguments).is_err());
        status.logs[0].problem.clear();
        status.time -= 1000;
        write(folder.path(), &status).unwrap();
        assert!(show(&arguments).unwrap_err().to_string().contains("old"));
        std::fs::write(folder.path().join(STATUS), "{").unwrap();
        assert!(
            show(&arguments)
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }
}
