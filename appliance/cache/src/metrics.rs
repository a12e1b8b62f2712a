//! What is counted, and its text for Prometheus (exposition format 0.0.4).
//!
//! Names are those of the service that this one replaces, so that dashboards go on; what it did
//! not have begins with `larder_`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, Method, StatusCode};
use store::Status;
use tokio::time::Instant;

use crate::access_log::{AccessLog, Record};
use crate::accounts::{Accounts, Whose};
use crate::process;
use crate::traffic::Traffic;
use crate::transport::activity::Activity;

/// Upper bounds of the histogram in seconds, and how they are written.
const BUCKETS: [(f64, &str); 10] = [
    (0.01, "0.01"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (1.0, "1"),
    (2.5, "2.5"),
    (5.0, "5"),
    (10.0, "10"),
    (30.0, "30"),
];
/// What is logged for a client that went away before it had an answer.
const CLIENT_CLOSED: u16 = 499;

/// A number; most only grow.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// For one that says how much there is now.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Labels of a request: bounded, whatever clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    method: &'static str,
    group: &'static str,
    status: u16,
}

impl Labels {
    /// As written; `status` is its number in decimal.
    fn pairs<'a>(&self, status: &'a str) -> [(&'static str, &'a str); 4]
    where
        Self: 'a,
    {
        [
            ("method", self.method),
            ("path_group", self.group),
            ("status", status),
            ("status_class", &status[..1]),
        ]
    }
}

#[derive(Debug, Default)]
struct Durations {
    count: u64,
    sum: f64,
    /// Not cumulative.
    buckets: [u64; BUCKETS.len()],
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, Durations>>,
    pub(crate) traffic: Traffic,
    pub(crate) accounts: Accounts,
    pub(crate) connections: Counter,
    pub(crate) handshake_failures: Counter,
    pub(crate) log: AccessLog,
}

/// One request on its way: counted when the response was sent whole or given up.
#[derive(Debug)]
pub(crate) struct Observed {
    metrics: Arc<Metrics>,
    activity: Arc<Activity>,
    labels: Labels,
    began: Instant,
    /// Of the body, sent so far.
    bytes: AtomicU64,
    whose: Option<Whose>,
    id: Option<HeaderValue>,
}

impl Observed {
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        activity: &Arc<Activity>,
        method: &Method,
        group: &'static str,
    ) -> Self {
        activity.began();
        Self {
            metrics: Arc::clone(metrics),
            activity: Arc::clone(activity),
            labels: Labels {
                method: method_label(method),
                group,
                status: CLIENT_CLOSED,
            },
            began: Instant::now(),
            bytes: AtomicU64::new(0),
            whose: None,
            id: None,
        }
    }

    /// Whose request it is.
    pub(crate) fn identify(&mut self, id: HeaderValue, whose: Option<Whose>) {
        (self.id, self.whose) = (Some(id), whose);
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.labels.status = status.as_u16();
    }

    /// A piece of the response goes out.
    pub(crate) fn sent(&self, bytes: usize) {
        self.activity.moved();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.labels.method == "GET"
            && matches!(self.labels.status, 200 | 206)
            && let Some(flow) = self.metrics.traffic.of(self.labels.group)
        {
            flow.download_bytes.add(bytes as u64);
        }
    }

    /// The response breaks off because the disk failed.
    pub(crate) fn failed(&self) {
        if let Some(flow) = self.metrics.traffic.of(self.labels.group) {
            flow.download_errors.add(1);
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.activity.ended();
        let duration = self.began.elapsed();
        let Labels {
            method,
            group,
            status,
        } = self.labels;
        // What only somebody says is not told as an account's.
        let granted = self.whose.as_ref().filter(|whose| whose.granted);
        self.metrics.log.record(status, duration, || Record {
            method,
            group,
            status,
            duration,
            bytes: self.bytes.load(Ordering::Relaxed),
            account: granted.map(|whose| whose.account.clone()),
            id: self
                .id
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default()
                .into(),
        });
        if let Some(whose) = &self.whose {
            self.metrics.accounts.count(whose, status);
        }
        let seconds = duration.as_secs_f64();
        let mut requests = self.metrics.lock();
        let durations = requests.entry(self.labels).or_default();
        durations.count += 1;
        durations.sum += seconds;
        if let Some(at) = BUCKETS.iter().position(|bound| seconds <= bound.0) {
            durations.buckets[at] += 1;
        }
    }
}

fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "PROPFIND",
    ];
    let known = KNOWN.iter().find(|known| **known == method.as_str());
    known.copied().unwrap_or("INVALID")
}

impl Metrics {
    /// Whose requests go into this log as well.
    pub(crate) fn with(log: AccessLog) -> Self {
        Self {
            log,
            ..Self::default()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Labels, Durations>> {
        // Plain numbers: at worst one request is counted by half.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text for Prometheus; `more` adds what others count.
    pub(crate) fn text(
        &self,
        version: &str,
        store: &Status,
        more: impl FnOnce(&mut Text),
    ) -> String {
        let mut text = Text::default();
        text.family("larder_build_info", "gauge", "Version of the image.");
        text.line("", &[("version", version)], 1);
        text.family(
            "larder_store_up",
            "gauge",
            "Whether the store can be read and written.",
        );
        for (operation, up) in [
            ("read", !matches!(store, Status::Unusable(_))),
            ("write", *store == Status::Ready),
        ] {
            text.line("", &[("operation", operation)], u64::from(up));
        }
        self.requests(&mut text);
        self.accounts.write(&mut text);
        self.traffic.write(&mut text);
        for (name, help, counter) in [
            (
                "connections_total",
                "Connections accepted.",
                &self.connections,
            ),
            (
                "tls_handshake_failures_total",
                "TLS handshakes failed.",
                &self.handshake_failures,
            ),
        ] {
            text.family(&format!("larder_cache_{name}"), "counter", help);
            text.line("", &[], counter.get());
        }
        self.log.write(&mut text);
        more(&mut text);
        process::write(&mut text);
        text.into_text()
    }

    fn requests(&self, text: &mut Text) {
        let requests = self.lock();
        text.family(
            "cache_nginx_http_responses_total",
            "counter",
            "Requests answered.",
        );
        for (labels, durations) in requests.iter() {
            let status = labels.status.to_string();
            text.line("", &labels.pairs(&status), durations.count);
        }
        text.family(
            "cache_nginx_request_duration_seconds",
            "histogram",
            "Seconds from the head of the request to the end of the response.",
        );
        for (labels, durations) in requests.iter() {
            let status = labels.status.to_string();
            let pairs = labels.pairs(&status);
            let mut bucket = |bound: &str, count: u64| {
                text.line("_bucket", &[&pairs[..], &[("le", bound)]].concat(), count);
            };
            let mut sum = 0;
            for ((_, bound), count) in BUCKETS.iter().zip(durations.buckets) {
                sum += count;
                bucket(bound, sum);
            }
            bucket("+Inf", durations.count);
            text.line("_sum", &pairs, durations.sum);
            text.line("_count", &pairs, durations.count);
        }
    }
}

/// Text in the making.
#[derive(Debug, Default)]
pub(crate) struct Text {
    text: String,
    family: String,
}

impl Text {
    #[cfg(test)]
    pub(crate) fn into_string(self) -> String {
        self.text
    }

    /// Begins a metric.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.family = name.into();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// All of it.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// A line of the metric.
    pub(crate) fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        for (at, (name, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{before}{name}=\"{value}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timeouts;

    #[test]
    fn labels_are_bounded() {
        assert_eq!(method_label(&Method::GET), "GET");
        assert_eq!(
            method_label(&Method::from_bytes(b"BREW").unwrap()),
            "INVALID"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_counted_once_it_is_over() {
        let metrics = Arc::new(Metrics::default());
        let activity = Arc::new(Activity::new(&Timeouts::default()));
        let mut observed = Observed::new(&metrics, &activity, &Method::GET, "xcode");
        observed.answered(StatusCode::OK);
        observed.sent(7);
        tokio::time::advance(std::time::Duration::from_millis(60)).await;
        let text = |metrics: &Metrics| metrics.text("1\"2", &Status::Ready, |_| {});
        assert!(!text(&metrics).contains("status=\"200\""));
        drop(observed);
        drop(Observed::new(&metrics, &activity, &Method::GET, "other"));
        let text = text(&metrics);
        let labels = r#"method="GET",path_group="xcode",status="200",status_class="2""#;
        for line in [
            format!("cache_nginx_http_responses_total{{{labels}}} 1"),
            format!("cache_nginx_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 0"),
            format!("cache_nginx_request_duration_seconds_bucket{{{labels},le=\"0.1\"}} 1"),
            format!("cache_nginx_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 1"),
            format!("cache_nginx_request_duration_seconds_sum{{{labels}}} 0.06"),
            "tuist_cache_xcode_download_bytes 7".into(),
            r#"larder_build_info{version="1\"2"} 1"#.into(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(text.contains("status=\"499\",status_class=\"4\"} 1"));
    }
}
