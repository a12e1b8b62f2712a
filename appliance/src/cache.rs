//! `appliance cache`: the cache service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use cache::{
    AccessLogSettings, AcmeSettings, AuthSettings, ConfiguredToken, Credentials, Listeners,
    Network, Server, ServerSettings, Settings, SharedAlgorithm, Timeouts, TokenHash,
    TransportSettings,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::files::{self, Root};
use crate::identity::Identity;
use crate::oncall;

/// Credential that holds the token that clients must show.
const TOKEN: &str = "larder.cache-token";

/// Serve artifacts over HTTPS.
///
/// The sockets (named https, http and metrics), the credential larder.cache-token and the folder of
/// the certificate ($STATE_DIRECTORY) come from systemd. For development:
///
///     appliance cache --config configs --storage /tmp/cas --listen 127.0.0.1:8443
///
/// The folder of artifacts may be missing, read-only or broken: then reads miss and writes fail,
/// and the status of the service says why.
///
/// With one of the commands below, it asks the service that runs on this machine instead.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    question: Option<oncall::Command>,
    /// Folder of the configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/larder")]
    config: PathBuf,
    /// Folder of the artifacts, instead of the configured one
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Listen here for HTTPS, instead of on systemd's sockets; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Listen here for HTTP (with --listen); may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", requires = "listen")]
    listen_http: Vec<SocketAddr>,
    /// Listen here for /metrics (with --listen); may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", requires = "listen")]
    listen_metrics: Vec<SocketAddr>,
    /// Answer questions of the person on call here (with --listen)
    #[arg(long, value_name = "PATH", requires = "listen")]
    control: Option<PathBuf>,
}

/// Runs the service until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(question) = &arguments.question {
        return oncall::run(question);
    }
    // SAFETY: this is the first thing that this process does with files it has not opened itself,
    // and it is done once.
    let systemd = unsafe { Listeners::from_systemd() }?;
    let mut listeners = if arguments.listen.is_empty() {
        systemd
    } else {
        Listeners::bind(
            &arguments.listen,
            &arguments.listen_http,
            &arguments.listen_metrics,
        )?
    };
    if let Some(path) = &arguments.control {
        let socket = std::os::unix::net::UnixListener::bind(path);
        let failed = || format!("cannot listen on {}", path.display());
        listeners.control = Some(socket.with_context(failed)?);
    }
    let settings = settings(arguments, &Root::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the service")?;
    runtime.block_on(async {
        let stop = stop()?;
        Server::new(settings, listeners).await?.run(stop).await;
        anyhow::Ok(())
    })?;
    // A read from a dying disk may hang for minutes; nobody waits for it any more.
    runtime.shutdown_background();
    Ok(())
}

/// Is ready when the service is to stop.
fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn settings(arguments: &Arguments, root: &Root) -> anyhow::Result<Settings> {
    let config = config::Cache::load(&arguments.config)?;
    let token = match files::credential(TOKEN)? {
        Some(token) => {
            let hash = TokenHash::of_token(&token);
            Some(hash.with_context(|| format!("the credential {TOKEN} is empty"))?)
        }
        None => match &config.token_sha256 {
            Some(digits) => {
                let hash = TokenHash::from_hex(digits);
                Some(hash.context("cache.toml: token_sha256 is not 64 hex digits")?)
            }
            None => None,
        },
    };
    let auth = auth(&config.auth, token)?;
    Ok(Settings {
        storage: arguments
            .storage
            .clone()
            .unwrap_or_else(|| config.storage.into()),
        durability: match config.durability {
            config::Durability::Lazy => ::store::Durability::Lazy,
            config::Durability::Ack => ::store::Durability::Ack,
        },
        state: std::env::var_os("STATE_DIRECTORY").map(Into::into),
        auth,
        access_log: access_log(&config.access_log),
        acme: config.certificate.acme.map(|acme| AcmeSettings {
            directory: acme.directory,
            contact: acme.contact,
            ca_file: acme.ca_file.map(Into::into),
            check_dns: acme.check_dns,
        }),
        credentials: credentials(),
        max_cas_bytes: config.max_cas_bytes,
        plain_networks: networks(&config.plain_http_networks)?,
        signed_only: config.turborepo_signed_only,
        drain: Duration::from_secs(config.drain_seconds),
        names: names(root),
        version: files::version(root),
        timeouts: Timeouts::default(),
        transport: TransportSettings {
            streams: config.transport.streams,
            requests: config.transport.requests,
            budget: config.transport.budget_bytes,
        },
    })
}

fn auth(auth: &config::Auth, token: Option<TokenHash>) -> anyhow::Result<AuthSettings> {
    let tokens = auth.tokens.iter().map(|token| {
        let hash = TokenHash::from_hex(&token.sha256);
        Ok(ConfiguredToken {
            name: token.name.clone(),
            hash: hash.context("cache.toml: sha256 of a token is not 64 hex digits")?,
            projects: token.projects.clone(),
            write: token.write,
            expires: token.expires_seconds().map(Duration::from_secs),
        })
    });
    let algorithm = SharedAlgorithm::of_name(&auth.jwt_algorithm);
    Ok(AuthSettings {
        token,
        tokens: tokens.collect::<anyhow::Result<_>>()?,
        issuer: auth.jwt_issuer.clone(),
        algorithm: algorithm.context("cache.toml: jwt_algorithm is none of a shared secret")?,
        server: auth.server.as_ref().map(|url| ServerSettings {
            url: url.clone(),
            ca_file: auth.server_ca_file.as_ref().map(Into::into),
        }),
        failing_tokens: auth.failing_tokens,
        ..AuthSettings::default()
    })
}

fn access_log(log: &config::AccessLog) -> Option<AccessLogSettings> {
    let socket = format!("/run/systemd/journal.{}/socket", log.namespace);
    (!log.namespace.is_empty()).then(|| AccessLogSettings {
        socket: socket.into(),
        share: log.percent / 100.0,
    })
}

/// Where the service reads its credentials, at its start and whenever they change.
fn credentials() -> Credentials {
    Credentials {
        folder: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
        socket: Some(secrets::refresh::SOCKET.into()),
    }
}

fn networks(texts: &[String]) -> anyhow::Result<Vec<Network>> {
    let parse = |text: &String| {
        let network = text.parse::<Network>();
        network.with_context(|| format!("cache.toml: plain_http_networks: {text:?}"))
    };
    texts.iter().map(parse).collect()
}

/// The names of this machine; one without identity is served under a name that fits nobody else.
fn names(root: &Root) -> Vec<String> {
    match Identity::read(root) {
        Ok(identity) if !identity.names.is_empty() => identity.names,
        Ok(_) => vec!["localhost".into()],
        Err(error) => {
            log::warn!("{error:#}; the certificate is for localhost");
            vec!["localhost".into()]
        }
    }
}
