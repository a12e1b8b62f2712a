//! The service as a whole: start, accept, stop.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use store::{Status, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::access_log::AccessLog;
use crate::adapters::sccache::Checks;
use crate::api::sessions::Sessions;
use crate::auth::Access;
use crate::certificate::{Certificates, provider};
use crate::metrics::Metrics;
use crate::reload::{self, Keys, Pair};
use crate::transport::budget::Budget;
use crate::transport::connection;
use crate::{Error, Listeners, Settings, control, notify};

/// Most connections at a time; files of objects come on top.
const CONNECTIONS: usize = 16 * 1024;
/// Bytes of small objects in memory that are read often.
const HOT: u64 = 32 << 20;
/// How often a store in trouble is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often the certificate is looked at.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(600);
/// Pause after a failed accept: mostly there are no descriptors left.
const BREATH: Duration = Duration::from_millis(50);
/// The same complaint about the disk is made this often at most.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Https,
    Http,
    Metrics,
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) access: Access,
    pub(crate) budget: Arc<Budget>,
    pub(crate) sessions: Sessions,
    pub(crate) checks: Checks,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) metrics: Arc<Metrics>,
    complaints: Mutex<Option<Instant>>,
    unsaid: AtomicU64,
}

impl Shared {
    /// Logs that the disk failed, but not for each of a thousand requests.
    pub(crate) fn complain(&self, verb: &str, error: &store::Error) {
        let now = Instant::now();
        let mut last = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now < last + COMPLAINTS) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *last = Some(now);
        let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
        log::error!(
            "cannot {verb} an object: {error} ({unsaid} more failures since the last word)"
        );
    }
}

/// The service, ready to run.
pub struct Server {
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    listeners: Vec<(Listener, tokio::net::TcpListener)>,
    control: Option<UnixListener>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the store, takes or makes the certificate, takes the listeners. A store that cannot
    /// be used is said, and no reason not to start.
    ///
    /// # Errors
    ///
    /// There is nothing to listen on, or no certificate can be made.
    pub async fn new(settings: Settings, listeners: Listeners) -> Result<Self, Error> {
        if listeners.https.is_empty() {
            return Err(Error::NoListener);
        }
        let folder = settings.state.as_deref();
        let certificates = Certificates::open(&settings.names, folder, SystemTime::now())?;
        let certificates = Arc::new(certificates);
        let pair = Pair::of_folder(&settings.credentials);
        if let Err(reason) = pair.give(&certificates) {
            log::error!("{reason}; another certificate serves");
        }
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Tls { source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Certificates>::clone(&certificates));
        // Sessions go on after a restart of neither side but of ours only by a full handshake: the
        // keys of tickets live in this process.
        tls.ticketer =
            rustls::crypto::ring::Ticketer::new().map_err(|source| Error::Tls { source })?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut all = Vec::new();
        for (kind, sockets) in [
            (Listener::Https, listeners.https),
            (Listener::Http, listeners.http),
            (Listener::Metrics, listeners.metrics),
        ] {
            for socket in sockets {
                all.push((kind, asynchronous(socket)?));
            }
        }
        let clock = Arc::new(secrets::clock::System);
        let access = Access::new(&settings.auth, settings.state.as_deref(), clock);
        let access = access.map_err(|reason| Error::Auth { reason })?;
        let keys = Keys::of_folder(&settings.credentials);
        if let Err(reason) = keys.give(&access) {
            log::error!("{reason}; tokens that are signed with it are refused");
        }
        if access.is_closed() {
            log::warn!(
                "no token: every request is refused. Give one as credential larder.cache-token, or \
                 its SHA-256 as token_sha256 in cache.toml"
            );
        }
        let log = match &settings.access_log {
            None => AccessLog::default(),
            Some(settings) => AccessLog::start(settings).unwrap_or_else(|error| {
                log::error!("no access records: {error}");
                AccessLog::default()
            }),
        };
        let store = store::Settings {
            durability: settings.durability,
            hot_bytes: HOT,
            ..store::Settings::new(vec![settings.storage.clone()])
        };
        let store = Store::open_with(store).await;
        say(&store.status(), &settings.storage);
        let shared = Shared {
            access,
            certificates,
            budget: Budget::new(settings.transport.budget),
            sessions: Sessions::default(),
            checks: Checks::default(),
            settings,
            store,
            metrics: Arc::new(Metrics::with(log)),
            complaints: Mutex::default(),
            unsaid: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            tls: TlsAcceptor::from(Arc::new(tls)),
            listeners: all,
            control: listeners.control,
        })
    }

    /// Serves until `stop` is ready, then lets running transfers end, as long as the settings say.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        // Every connection holds a sender: when all are gone, so are the connections.
        let (running, mut ended) = mpsc::channel::<()>(1);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        // Before anybody is served: whoever has an answer may change what is looked at.
        let reload = signal(SignalKind::hangup())
            .inspect_err(|error| log::warn!("cannot listen for SIGHUP: {error}"))
            .ok();
        let credentials = reload::look(Arc::clone(&self.shared), reload);
        let mut accepting = Vec::new();
        for (kind, listener) in self.listeners {
            let accept = Accept {
                shared: Arc::clone(&self.shared),
                kind,
                tls: self.tls.clone(),
                room: Arc::clone(&room),
                stopped: stopped.clone(),
                running: running.clone(),
            };
            accepting.push(tokio::spawn(accept.forever(listener)));
        }
        let shared = Arc::clone(&self.shared);
        let looking = tokio::spawn(look(Arc::clone(&shared)));
        let tokens = tokio::spawn(credentials);
        let acme = tokio::spawn(reload::acme(Arc::clone(&shared)));
        let control = self
            .control
            .map(|socket| tokio::spawn(control::serve(Arc::clone(&shared), socket)));
        let watchdog = tokio::spawn(notify::watchdog());
        notify::ready(&in_words(&shared));
        log::info!("{}", in_words(&shared));
        stop.await;
        let drain = shared.settings.drain;
        notify::stopping("stopping: running transfers may end");
        log::info!("stopping: running transfers have {} s", drain.as_secs());
        for task in &accepting {
            task.abort();
        }
        for task in accepting {
            // The listener is closed, no connection is on its way to its task any more.
            let _ = task.await;
        }
        drop(running);
        let _ = stopping.send(true);
        if tokio::time::timeout(drain, ended.recv()).await.is_err() {
            log::warn!(
                "transfers that still ran after {} s are broken off",
                drain.as_secs()
            );
        }
        looking.abort();
        if let Some(control) = control {
            control.abort();
        }
        tokens.abort();
        acme.abort();
        watchdog.abort();
        shared.store.clone().close().await;
    }
}

fn asynchronous(socket: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(socket))
        .map_err(|source| Error::Sockets { source })
}

/// Accepts connections of one listener.
struct Accept {
    shared: Arc<Shared>,
    kind: Listener,
    tls: TlsAcceptor,
    room: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
    running: mpsc::Sender<()>,
}

impl Accept {
    async fn forever(self, listener: tokio::net::TcpListener) {
        loop {
            // Never closed.
            let permit = Arc::clone(&self.room).acquire_owned().await.ok();
            let (stream, peer) = match listener.accept().await {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    log::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let shared = Arc::clone(&self.shared);
            let (tls, stopped) = (self.tls.clone(), self.stopped.clone());
            let (kind, running) = (self.kind, self.running.clone());
            tokio::spawn(async move {
                connection::serve(shared, kind, tls, stream, peer, stopped).await;
                drop((permit, running));
            });
        }
    }
}

/// Looks after the store and the certificate, for ever.
async fn look(shared: Arc<Shared>) {
    let mut last = shared.store.status();
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        shared.sessions.sweep();
        let status = shared.store.check().await;
        if status != last {
            say(&status, &shared.settings.storage);
            notify::status(&in_words(&shared));
            last = status;
        }
        if looked.elapsed() >= LOOK_AT_CERTIFICATE {
            looked = Instant::now();
            let certificates = Arc::clone(&shared.certificates);
            let checked =
                tokio::task::spawn_blocking(move || certificates.check(SystemTime::now())).await;
            if let Ok(Err(error)) = checked {
                log::error!("{error}");
            }
        }
    }
}

/// Logs how the store is.
fn say(status: &Status, folder: &Path) {
    let folder = folder.display();
    match status {
        Status::Ready => log::info!("the store at {folder} is ready"),
        Status::WritesFail(reason) => {
            log::error!("the store at {folder} can be read but not written: {reason}");
        }
        Status::Unusable(reason) => {
            log::error!("the store at {folder} cannot be used, all reads miss: {reason}");
        }
    }
}

/// The state of the service in words.
pub(crate) fn in_words(shared: &Shared) -> String {
    let serving = format!("serving {}", shared.settings.names.join(" "));
    match shared.store.status() {
        Status::Ready => serving,
        Status::WritesFail(reason) => format!("{serving}, but nothing can be stored: {reason}"),
        Status::Unusable(reason) => format!("{serving} without a store: {reason}"),
    }
}
