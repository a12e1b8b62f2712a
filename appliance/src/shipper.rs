//! `appliance shipper`: logs to Loki, metrics to Prometheus.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use config::Environment;
use sd_notify::NotifyState;
use shipper::counters::{LogCounters, MetricCounters};
use shipper::http::{Client, ClientSettings, Credentials, headers};
use shipper::journal::Place;
use shipper::logs::Labels;
use shipper::metrics::{Group, Host, Own, Source, Target, Units};
use shipper::{LogSource, Service, Settings, Status, Stop};
use tokio::signal::unix::{SignalKind, signal};

use crate::files::{self, Root};
use crate::identity::Identity;

/// File of the status, below the runtime directory of the unit.
const STATUS: &str = "status.json";
/// Its folder, when the status is asked for by hand.
const RUNTIME: &str = "/run/larder-shipper";
/// Time between two writes of the status.
const TICK: Duration = Duration::from_secs(10);
/// A status that is older than this is of a service that hangs or has ended, in seconds.
const FRESH: i64 = 60;
/// Time between two tries to reach the secrets service.
const SECRETS: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Status(ShowStatus),
    Scrape(Scrape),
}

/// Ship logs and metrics until told to stop; SIGHUP makes it try at once what it waits with.
///
/// The credentials loki-url, loki-username and loki-password (or loki-token), and
/// prom-remote-write-url, prom-username and prom-password (or prom-token) come from systemd, as do
/// $STATE_DIRECTORY and $RUNTIME_DIRECTORY.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Folder of the configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/larder")]
    config: PathBuf,
    /// Folder for cursors and waiting metrics, instead of $STATE_DIRECTORY
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Ship the journal files of this folder instead of this machine's journals
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
}

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

/// Print the metrics of this machine once.
#[derive(Debug, clap::Args)]
pub(crate) struct Scrape {}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Run(arguments) => serve(arguments),
        Command::Status(arguments) => status(arguments),
        Command::Scrape(_) => {
            let mut sink = shipper::metrics::TextSink::default();
            Host::default().collect(&mut sink);
            Units::default().collect(&mut sink);
            print!("{}", sink.text);
            Ok(())
        }
    }
}

fn serve(arguments: &Run) -> anyhow::Result<()> {
    let state = match (&arguments.state, std::env::var_os("STATE_DIRECTORY")) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.into(),
        (None, None) => bail!("there is no $STATE_DIRECTORY: name a folder by --state"),
    };
    std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let settings = settings(arguments, &Root::default(), &state)?;
    let stop = Stop::default();
    let service = Service::start(settings, stop.clone()).context("cannot start the threads")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(supervise(&service, &stop));
    stop.stop();
    service.join();
    outcome
}

/// Waits for the end, and tells systemd and people meanwhile how it goes.
async fn supervise(service: &Service, stop: &Stop) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut tick = tokio::time::interval(
        sd_notify::watchdog_enabled().map_or(TICK, |period| (period / 2).min(TICK)),
    );
    let blotting = blot(service);
    tokio::pin!(blotting);
    tell(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => stop.hurry(),
            () = &mut blotting => {}
            _ = tick.tick() => {
                let status = service.status();
                tell(&[NotifyState::Status(&summary(&status))]);
                match service.hangs() {
                    None => tell(&[NotifyState::Watchdog]),
                    Some(thread) => log::error!("the thread {thread} hangs or has ended"),
                }
                if let Some(folder) = std::env::var_os("RUNTIME_DIRECTORY")
                    && let Err(error) = write_status(Path::new(&folder), &status)
                {
                    log::warn!("cannot write the status: {error}");
                }
            }
        }
    }
    tell(&[NotifyState::Stopping]);
    Ok(())
}

/// Learns from the secrets service what to blot out; never returns. A machine without that service
/// has no secrets of its.
async fn blot(service: &Service) {
    let socket = Path::new(secrets::refresh::SOCKET);
    let mut said = String::new();
    loop {
        if socket.exists()
            && let Err(error) = watch(service, socket).await
        {
            let error = format!("cannot learn what to blot out of logs: {error:#}");
            if error != said {
                log::warn!("{error}");
                said = error;
            }
        }
        tokio::time::sleep(SECRETS).await;
    }
}

async fn watch(service: &Service, socket: &Path) -> anyhow::Result<()> {
    let mut client = secrets::refresh::Client::connect(socket).await?;
    client.watch().await?;
    loop {
        let known = client.fingerprints().await?;
        service.blot(&known.key, &known.fingerprints);
        client.acknowledge(known.number).await?;
    }
}

/// Tells systemd; without it nothing happens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd the state of the service: {error}");
    }
}

fn write_status(folder: &Path, status: &Status) -> anyhow::Result<()> {
    let path = folder.join(STATUS);
    let new = folder.join("status.json.new");
    std::fs::write(&new, serde_json::to_vec(status)?)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
    Ok(std::fs::rename(new, path)?)
}

/// One line for `systemctl status`.
fn summary(status: &Status) -> String {
    let problems = status.logs.iter().map(|log| &log.problem);
    let problems = problems
        .chain([&status.metrics.problem])
        .filter(|text| !text.is_empty());
    let problems: Vec<_> = problems.map(String::as_str).collect();
    if problems.is_empty() {
        let shipped: u64 = status.logs.iter().map(|log| log.shipped).sum();
        return format!(
            "{shipped} lines and {} samples shipped",
            status.metrics.samples
        );
    }
    problems.join("; ")
}

fn status(arguments: &ShowStatus) -> anyhow::Result<()> {
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
    let problem = |text: &str| match text {
        "" => String::new(),
        text => format!("  {text}\n"),
    };
    for log in &status.logs {
        out += &format!(
            "logs {}: {} lines shipped, {} lost, {} s behind\n{}",
            log.journal,
            log.shipped,
            log.lost,
            log.behind_seconds,
            problem(&log.problem)
        );
    }
    let metrics = &status.metrics;
    out += &format!(
        "metrics: {} samples shipped, {} lost, {} scrapes waiting\n{}",
        metrics.samples,
        metrics.lost,
        metrics.waiting,
        problem(&metrics.problem)
    );
    out
}

fn settings(arguments: &Run, root: &Root, state: &Path) -> anyhow::Result<Settings> {
    let config = config::Shipper::load(&arguments.config)?;
    let identity = Identity::read(root).unwrap_or_else(|error| {
        log::warn!("{error:#}; shipping under the kernel's host name");
        Identity::default()
    });
    let instance = identity.host.clone().unwrap_or_else(|| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    });
    let loki = receiver(
        &config,
        "loki",
        "loki-url",
        &config.logs.url,
        "/loki/api/v1/push",
    )?;
    let url = &config.metrics.url;
    let prometheus = receiver(
        &config,
        "prom",
        "prom-remote-write-url",
        url,
        "/api/v1/write",
    )?;
    let logs = sources(arguments, &config, &identity, &instance);
    let counters = Arc::new(MetricCounters::default());
    let own = Own {
        logs: logs
            .iter()
            .map(|log| (log.name.clone(), Arc::clone(&log.counters)))
            .collect(),
        metrics: Arc::clone(&counters),
    };
    let targets = targets(&config, &identity, &instance, own)?;
    Ok(Settings {
        state: state.to_owned(),
        logs: (logs, loki),
        metrics: (targets, prometheus),
        counters,
    })
}

/// A receiver by credentials and configuration. `None`: neither names one.
fn receiver(
    config: &config::Shipper,
    prefix: &str,
    url_credential: &str,
    url: &Option<String>,
    path: &str,
) -> anyhow::Result<Option<ClientSettings>> {
    let given = files::credential(url_credential)?;
    let given = given.map(|url| String::from_utf8_lossy(&url).trim().to_owned());
    // An optional credential that there is not arrives empty.
    let given = given.filter(|url| !url.is_empty());
    let Some(url) = given.as_ref().or(url.as_ref()) else {
        return Ok(None);
    };
    let file = |name: &str| -> Option<PathBuf> {
        let folder = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
        let path = folder.join(format!("{prefix}-{name}"));
        path.metadata()
            .is_ok_and(|file| file.len() > 0)
            .then_some(path)
    };
    let credentials = match (file("username"), file("password"), file("token")) {
        (Some(user), Some(password), _) => Credentials::Basic { user, password },
        (_, _, Some(token)) => Credentials::Bearer(token),
        (None, None, None) => Credentials::None,
        _ => bail!("of {prefix}-username and {prefix}-password there is only one"),
    };
    let (ca, proxy) = (
        config.ca_file.as_deref().map(Path::new),
        config.proxy.as_deref(),
    );
    let plain = config.allow_plain_http;
    let mut settings = ClientSettings::new(url, path, credentials, ca, proxy, plain)
        .with_context(|| format!("the receiver of {prefix}"))?;
    settings.headers = headers(prefix == "prom");
    Ok(Some(settings))
}

fn sources(
    arguments: &Run,
    config: &config::Shipper,
    identity: &Identity,
    instance: &str,
) -> Vec<LogSource> {
    let logs = &config.logs;
    let mut metadata = Vec::new();
    if let Some(environment) = identity.environment {
        metadata.push(("environment".to_owned(), word(environment).to_owned()));
    }
    if let Some(region) = &identity.region {
        metadata.push(("region".to_owned(), region.clone()));
    }
    let source = |name: &str, place: Place, stream: Option<&str>| LogSource {
        name: name.into(),
        place,
        settings: shipper::logs::Settings::new(Labels {
            instance: instance.into(),
            service: (logs.service_job.clone(), logs.service_app.clone()),
            host: (logs.host_job.clone(), logs.host_app.clone()),
            service_units: logs.service_units.clone(),
            stream: stream.map(Into::into),
            metadata: metadata.clone(),
        }),
        counters: Arc::new(LogCounters::default()),
    };
    if let Some(folder) = &arguments.journal {
        return vec![source("folder", Place::Folder(folder.clone()), None)];
    }
    let mut sources = vec![source("system", Place::System, None)];
    if let Some(namespace) = &logs.access_namespace {
        let place = Place::Namespace(namespace.clone());
        sources.push(source("access", place, Some("access")));
    }
    sources
}

fn word(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "production",
        Environment::Staging => "staging",
        Environment::Canary => "canary",
        Environment::Development => "development",
    }
}

fn targets(
    config: &config::Shipper,
    identity: &Identity,
    instance: &str,
    own: Own,
) -> anyhow::Result<Vec<Target>> {
    let metrics = &config.metrics;
    let elsewhere = identity
        .environment
        .is_some_and(|is| is != Environment::Production)
        || ["-staging", "-canary"]
            .iter()
            .any(|end| instance.ends_with(end));
    let interval = |seconds: [u64; 2]| Duration::from_secs(seconds[usize::from(elsewhere)]);
    let labels = |job: &str| {
        let mut labels = vec![
            ("instance".to_owned(), instance.to_owned()),
            ("job".to_owned(), job.to_owned()),
        ];
        labels.extend(config.labels.clone());
        labels
    };
    let url = &metrics.service_url;
    let client = ClientSettings::new(url, "/metrics", Credentials::None, None, None, false)
        .context("metrics.service_url")?;
    let groups = vec![
        Group::of_unit("cache", &metrics.service_unit),
        Group::of_unit("shipper", "larder-shipper.service"),
    ];
    Ok(vec![
        Target {
            labels: labels("cache"),
            interval: interval(metrics.service_seconds),
            source: Source::Http(Box::new(Client::new(client)?)),
        },
        Target {
            labels: labels("node"),
            interval: interval(metrics.host_seconds),
            source: Source::Host(Host::default(), Units::default(), Box::new(own)),
        },
        Target {
            labels: labels("process"),
            interval: interval(metrics.host_seconds),
            source: Source::Groups(groups),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_in_words() {
        let mut status = Status::default();
        status.logs.push(shipper::LogStatus {
            journal: "system".into(),
            shipped: 7,
            lost: 1,
            behind_seconds: 3,
            problem: String::new(),
        });
        assert_eq!(summary(&status), "7 lines and 0 samples shipped");
        status.metrics.problem = "metrics wait: network".into();
        assert_eq!(summary(&status), "metrics wait: network");
        assert_eq!(
            table(&status),
            "logs system: 7 lines shipped, 1 lost, 3 s behind\n\
             metrics: 0 samples shipped, 0 lost, 0 scrapes waiting\n  metrics wait: network\n"
        );
    }
}
