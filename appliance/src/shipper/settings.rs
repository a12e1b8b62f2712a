//! From configuration, credentials and identity to what the service is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use config::Environment;
use shipper::counters::{LogCounters, MetricCounters};
use shipper::http::{Client, ClientSettings, Credentials as Access, headers};
use shipper::journal::Place;
use shipper::logs::Labels;
use shipper::metrics::{Group, Host, Own, Source, Target, Units};
use shipper::{LogSource, Receivers, Settings};

use super::Run;
use super::fetched::{self, Credentials};
use crate::files::Root;
use crate::identity::Identity;

/// What the service is told at its start.
///
/// # Errors
///
/// The service's address in the configuration is none. Receivers that are not usable are no error:
/// the status says so, and new credentials may put them right.
pub(super) fn settings(
    arguments: &Run,
    config: &config::Shipper,
    root: &Root,
    state: &Path,
    credentials: &Credentials,
) -> anyhow::Result<Settings> {
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
    let logs = sources(arguments, config, &identity, &instance);
    let counters = Arc::new(MetricCounters::default());
    let own = Own {
        logs: logs
            .iter()
            .map(|log| (log.name.clone(), Arc::clone(&log.counters)))
            .collect(),
        metrics: Arc::clone(&counters),
    };
    let targets = targets(config, &identity, &instance, own)?;
    Ok(Settings {
        state: state.to_owned(),
        logs,
        metrics: targets,
        receivers: receivers(config, credentials),
        // Files that somebody names by hand are that somebody's.
        hold: arguments.journal.is_none() && fetched::is_there(),
        counters,
    })
}

/// Where logs and metrics go, by credentials and configuration.
pub(super) fn receivers(config: &config::Shipper, credentials: &Credentials) -> Receivers {
    let logs = Kind {
        prefix: "loki",
        url: "loki-url",
        path: "/loki/api/v1/push",
    };
    let metrics = Kind {
        prefix: "prom",
        url: "prom-remote-write-url",
        path: "/api/v1/write",
    };
    let words = |result: anyhow::Result<_>, kind: &Kind| {
        result.map_err(|error| {
            let error = format!("the receiver of {}: {error:#}", kind.prefix);
            log::error!("{error}");
            error
        })
    };
    Receivers {
        logs: words(
            receiver(config, credentials, &logs, config.logs.url.as_ref()),
            &logs,
        ),
        metrics: words(
            receiver(config, credentials, &metrics, config.metrics.url.as_ref()),
            &metrics,
        ),
    }
}

/// One of the two kinds of receivers.
struct Kind {
    /// What the names of its credentials begin with.
    prefix: &'static str,
    /// The credential of its address.
    url: &'static str,
    /// What is added to an address without a path.
    path: &'static str,
}

/// A receiver by credentials and configuration. `None`: neither names one.
fn receiver(
    config: &config::Shipper,
    credentials: &Credentials,
    kind: &Kind,
    configured: Option<&String>,
) -> anyhow::Result<Option<ClientSettings>> {
    let given = match credentials.get(kind.url) {
        Some(url) => Some(url.text()?.to_string()),
        None => configured.cloned(),
    };
    let Some(url) = given else {
        return Ok(None);
    };
    let prefix = kind.prefix;
    let get = |name: &str| credentials.get(&format!("{prefix}-{name}"));
    let access = match (get("username"), get("password"), get("token")) {
        (Some(user), Some(password), _) => Access::Basic { user, password },
        (None, None, Some(token)) => Access::Bearer(token),
        (None, None, None) => Access::None,
        _ => bail!("of {prefix}-username and {prefix}-password there is only one"),
    };
    let mut settings = ClientSettings::new(
        &url,
        kind.path,
        access,
        config.ca_file.as_deref().map(Path::new),
        config.proxy.as_deref(),
        config.allow_plain_http,
    )?;
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
    let client = ClientSettings::new(url, "/metrics", Access::None, None, None, false)
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
    fn receivers_that_cannot_be_used_are_named_and_none_is_no_error() {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut config = config::Shipper::load(&config).unwrap();
        let none = Credentials::default();
        let found = receivers(&config, &none);
        assert!(matches!((found.logs, found.metrics), (Ok(None), Ok(None))));
        config.logs.url = Some("https://logs.example".into());
        config.metrics.url = Some("ftp://metrics.example".into());
        let found = receivers(&config, &none);
        assert!(matches!(found.logs, Ok(Some(_))));
        let said = found.metrics.unwrap_err();
        assert!(
            said.contains("prom") && said.contains("metrics.example"),
            "{said}"
        );
    }
}
