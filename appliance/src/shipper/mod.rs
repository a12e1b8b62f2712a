//! `appliance shipper`: logs to Loki, metrics to Prometheus.

mod fetched;
mod settings;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use sd_notify::NotifyState;
use shipper::metrics::{Host, Units};
use shipper::{Service, Stop};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::files::Root;
use fetched::Credentials;

/// Time between two writes of the status.
const TICK: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Status(status::ShowStatus),
    Scrape(Scrape),
}

/// Ship logs and metrics until told to stop; SIGHUP makes it read its credentials anew and try at
/// once what it waits with.
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

/// Print the metrics of this machine once.
#[derive(Debug, clap::Args)]
pub(crate) struct Scrape {}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Run(arguments) => serve(arguments),
        Command::Status(arguments) => status::show(arguments),
        Command::Scrape(_) => {
            let mut sink = shipper::metrics::TextSink::default();
            Host::default().collect(&mut sink);
            Units::default().collect(&mut sink);
            shipper::metrics::Secrets::default().collect(&mut sink);
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
    let config = config::Shipper::load(&arguments.config)?;
    let credentials = Credentials::of_unit();
    let settings = settings::settings(arguments, &config, &Root::default(), &state, &credentials)?;
    let stop = Stop::default();
    let service = Service::start(settings, stop.clone()).context("cannot start the threads")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reload = Notify::new();
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = supervise(&service, &reload) => outcome,
            () = reloads(&service, &config, credentials, &reload) => Ok(()),
            // Beside the others: a value is only handed out once its fingerprint has come here.
            () = fetched::blot(&service) => Ok(()),
        }
    });
    stop.stop();
    service.join();
    outcome
}

/// Reads credentials anew whenever it is told to; never returns.
async fn reloads(
    service: &Service,
    config: &config::Shipper,
    mut credentials: Credentials,
    reload: &Notify,
) {
    loop {
        reload.notified().await;
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        credentials.refresh().await;
        service.receive(settings::receivers(config, &credentials));
        tell(&[NotifyState::Ready]);
    }
}

/// Waits for the end, and tells systemd and people meanwhile how it goes.
async fn supervise(service: &Service, reload: &Notify) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut tick = tokio::time::interval(
        sd_notify::watchdog_enabled().map_or(TICK, |period| (period / 2).min(TICK)),
    );
    tell(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload.notify_one(),
            _ = tick.tick() => {
                let status = service.status();
                tell(&[NotifyState::Status(&status::summary(&status))]);
                match service.hangs() {
                    None => tell(&[NotifyState::Watchdog]),
                    Some(thread) => log::error!("the thread {thread} hangs or has ended"),
                }
                if let Some(folder) = std::env::var_os("RUNTIME_DIRECTORY")
                    && let Err(error) = status::write(Path::new(&folder), &status)
                {
                    log::warn!("cannot write the status: {error}");
                }
            }
        }
    }
    tell(&[NotifyState::Stopping]);
    Ok(())
}

/// Tells systemd; without it nothing happens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd the state of the service: {error}");
    }
}
