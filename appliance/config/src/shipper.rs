//! `configs/shipper.toml`: where logs and metrics go, and under which labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The file `shipper.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shipper {
    /// PEM file of the authorities that receivers' certificates must come from; none: the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// The proxy for both, `http://host:port`.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Credentials may be sent over plain HTTP to other machines.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// Labels of every metric beside `instance` and `job`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Logs.
    pub logs: Logs,
    /// Metrics.
    pub metrics: Metrics,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Loki's push address; the credential `loki-url` wins.
    #[serde(default)]
    pub url: Option<String>,
    /// `job` of the service's lines.
    pub service_job: String,
    /// `app` of the service's lines.
    pub service_app: String,
    /// `job` of all other lines.
    pub host_job: String,
    /// `app` of all other lines.
    pub host_app: String,
    /// Units whose lines are the service's.
    pub service_units: Vec<String>,
    /// Journal namespace of access lines (label `stream="access"`).
    #[serde(default)]
    pub access_namespace: Option<String>,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Prometheus's remote-write address; the credential `prom-remote-write-url` wins.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the service shows its metrics.
    pub service_url: String,
    /// Its unit, for the metrics of its processes.
    pub service_unit: String,
    /// Seconds between two scrapes of the service, in production and elsewhere.
    pub service_seconds: [u64; 2],
    /// Seconds between two scrapes of the machine, in production and elsewhere.
    pub host_seconds: [u64; 2],
}
