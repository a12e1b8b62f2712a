//! The service.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sd_notify::NotifyState;
use secrets::clock::{Clock, System};
use secrets::credentials::{Credentials, Folders, SEALED, SYSTEM};
use secrets::fetcher::{Environment, Fetcher, Patience, Status, Systemctl, sources};
use secrets::manifest::Manifest;
use secrets::seal::SystemdCreds;
use secrets::socket::{Cgroup, CredentialServer, RefreshServer};
use secrets::transport::Synchronised;
use secrets::{LastGood, protect_process};
use tokio::signal::unix::{SignalKind, signal};

/// The unit that ships logs, and so has to know what to blot out of them.
const SHIPPER: &str = "larder-shipper.service";

#[derive(Debug, clap::Args)]
#[group(id = "serve")]
pub(super) struct Arguments {
    /// The manifest
    #[arg(long, value_name = "FILE", default_value = "/etc/larder/secrets.toml")]
    manifest: PathBuf,
    /// Folder for last-known-good values and budgets, instead of $STATE_DIRECTORY
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Make the sockets secrets.sock and refresh.sock here, instead of systemd
    #[arg(long, value_name = "DIR")]
    sockets: Option<PathBuf>,
    /// Longest wait for a synchronised clock before the first request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, hide = true)]
    clock: u64,
}

/// The two sockets.
struct Sockets {
    credential: UnixListener,
    refresh: UnixListener,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Before there is anything to protect.
    protect_process().context("cannot keep this process out of core dumps")?;
    // SAFETY: no other file has been opened by this process yet, and this is done once.
    let sockets = match (&arguments.sockets, unsafe { Sockets::from_systemd() }?) {
        (Some(folder), _) => Sockets::bind(folder)?,
        (None, Some(sockets)) => sockets,
        (None, None) => bail!(
            "systemd gave no sockets secrets and refresh: start larder-secrets.service, or name a \
             folder by --sockets"
        ),
    };
    let manifest = Manifest::load(&arguments.manifest)?;
    let state = match (&arguments.state, std::env::var_os("STATE_DIRECTORY")) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.into(),
        (None, None) => bail!("there is no $STATE_DIRECTORY: name a folder by --state"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the threads of the service")?;
    let synchronised = Synchronised {
        patience: Duration::from_secs(arguments.clock),
        ..Synchronised::default()
    };
    runtime.block_on(serve(manifest, &state, synchronised, sockets))?;
    // Requests on their way are of no use any more.
    runtime.shutdown_background();
    Ok(())
}

impl Sockets {
    /// Takes over the sockets that systemd holds. `None`: it started us without.
    ///
    /// # Safety
    ///
    /// To be called once, before any file is opened: the descriptors from 3 on are taken as systemd
    /// says.
    unsafe fn from_systemd() -> anyhow::Result<Option<Self>> {
        let (mut credential, mut refresh) = (None, None);
        let sockets = sd_notify::listen_fds_with_names();
        for (descriptor, name) in sockets.context("what systemd says of sockets makes no sense")? {
            // SAFETY: systemd opened it for us, and by the contract above nobody else owns it.
            let socket = UnixListener::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
            match &*name {
                "secrets" => credential = Some(socket),
                "refresh" => refresh = Some(socket),
                _ => bail!("systemd gave a socket {name:?}; they are secrets and refresh"),
            }
        }
        match (credential, refresh) {
            (Some(credential), Some(refresh)) => Ok(Some(Self {
                credential,
                refresh,
            })),
            (None, None) => Ok(None),
            _ => bail!("systemd gave only one of the sockets secrets and refresh"),
        }
    }

    fn bind(folder: &Path) -> anyhow::Result<Self> {
        let bind = |name: &str, mode| {
            let path = folder.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => UnixListener::bind(&path).and_then(|listener| {
                    let mode = std::fs::Permissions::from_mode(mode);
                    std::fs::set_permissions(&path, mode).map(|()| listener)
                }),
            }
            .with_context(|| format!("cannot listen on {}", path.display()))
        };
        Ok(Self {
            credential: bind("secrets.sock", 0o600)?,
            // Who may have what is told by the control group of who asks.
            refresh: bind("refresh.sock", 0o666)?,
        })
    }
}

async fn serve(
    manifest: Manifest,
    state: &Path,
    synchronised: Synchronised,
    sockets: Sockets,
) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut reload = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let fetcher = fetcher(manifest, state, &synchronised).await?;

    let origins = Arc::new(Cgroup::default());
    let user = rustix::process::getuid().as_raw();
    let credential = CredentialServer {
        fetcher: fetcher.clone(),
        origins: origins.clone(),
        user,
        starts: Arc::new(invocation),
    };
    let refresh = RefreshServer {
        fetcher: fetcher.clone(),
        origins,
        user,
        watcher: SHIPPER.into(),
    };
    let listen = |socket: UnixListener| {
        socket.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(socket)
    };
    let unheard = "cannot listen on a socket";
    let credential = Arc::new(credential).run(listen(sockets.credential).context(unheard)?);
    let refresh = Arc::new(refresh).run(listen(sockets.refresh).context(unheard)?);
    tell(&[NotifyState::Ready]);

    let signals = async {
        loop {
            tokio::select! {
                _ = stop.recv() => return,
                _ = interrupt.recv() => return,
                _ = reload.recv() => {
                    if let Ok(now) = NotifyState::monotonic_usec_now() {
                        tell(&[NotifyState::Reloading, now]);
                    }
                    log::info!("fetching all secrets anew");
                    fetcher.reload();
                    tell(&[NotifyState::Ready]);
                }
            }
        }
    };
    tokio::select! {
        () = signals => {}
        () = credential => {}
        () = refresh => {}
        () = report(&fetcher) => {}
        () = watchdog() => {}
    }
    tell(&[NotifyState::Stopping]);
    Ok(())
}

async fn fetcher(
    mut manifest: Manifest,
    state: &Path,
    synchronised: &Synchronised,
) -> anyhow::Result<Fetcher> {
    let sealer = Arc::new(SystemdCreds::new());
    let mut plain: Vec<PathBuf> = Vec::new();
    plain.extend(std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into));
    plain.push(SYSTEM.into());
    let folders = Folders {
        plain,
        sealed: SEALED.map(Into::into).into(),
        sealer: sealer.clone(),
    };
    for name in manifest.prefer_machine(|name| folders.has(name)) {
        log::info!("{name}: a system credential of the machine takes its place");
    }
    let credentials: Arc<dyn Credentials> = Arc::new(folders);
    let clock: Arc<dyn Clock> = Arc::new(System);
    let environment = Environment {
        sources: sources(&manifest, state, &credentials, &clock, synchronised),
        clock,
        last_good: Some(LastGood::new(state.into(), sealer)),
        units: Arc::new(Systemctl),
    };
    Ok(Fetcher::start(manifest, Patience::default(), environment).await?)
}

/// The current start of a unit, as PID 1 exports it for journald.
fn invocation(unit: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/run/systemd/units/invocation:{unit}")).ok()?;
    Some(link.to_str()?.to_owned())
}

/// Writes the status for those who may not ask: console and shipper. There is no value in it.
fn write_status(status: &Status) -> anyhow::Result<()> {
    // Started by hand, there is no place for it.
    let Some(folder) = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from) else {
        return Ok(());
    };
    let (path, new) = (folder.join("status.json"), folder.join("status.json.new"));
    let write = || {
        std::fs::write(&new, serde_json::to_vec(status)?)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
        std::fs::rename(&new, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps the status of the service up to date; never returns.
async fn report(fetcher: &Fetcher) {
    let mut changes = fetcher.changes();
    let mut told = String::new();
    loop {
        let status = fetcher.status();
        if let Err(error) = write_status(&status) {
            log::warn!("{error:#}");
        }
        let summary = status.summary();
        if summary != told {
            log::info!("{summary}");
            tell(&[NotifyState::Status(&summary)]);
            told = summary;
        }
        // Values grow stale without a word from anybody.
        let _ = tokio::time::timeout(Duration::from_secs(60), changes.changed()).await;
    }
}

/// Tells systemd that the service is alive, twice as often as it asks for; never returns.
async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Tells systemd; without systemd nothing happens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd the state of the service: {error}");
    }
}
