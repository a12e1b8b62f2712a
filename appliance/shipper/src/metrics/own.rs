//! The shipper's metrics about itself.

use std::path::Path;
use std::sync::Arc;

use super::process::Stat;
use super::sample::{Kind, Sink};
use crate::clock::Clock;
use crate::counters::{LogCounters, MetricCounters};

/// Where the shipper's own numbers come from.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Pipelines of logs by the name of their journal.
    pub logs: Vec<(String, Arc<LogCounters>)>,
    /// The pipeline of metrics.
    pub metrics: Arc<MetricCounters>,
}

impl Own {
    /// Collects them.
    pub fn collect(&self, sink: &mut dyn Sink) {
        use Kind::{Counter, Gauge};
        let now = crate::clock::SystemClock::new().now() / 1000;
        type Get = fn(&LogCounters) -> u64;
        let counters: [(&str, Get); 7] = [
            ("entries_read_total", |c| c.read.get()),
            ("entries_shipped_total", |c| c.shipped.get()),
            ("entries_lost_to_vacuum_total", |c| c.lost_to_vacuum.get()),
            ("entries_restamped_total", |c| c.restamped.get()),
            ("redactions_total", |c| c.redactions.get()),
            ("bytes_total", |c| c.bytes.get()),
            ("journal_read_errors_total", |c| c.read_errors.get()),
        ];
        for (name, get) in counters {
            sink.family(&format!("larder_shipper_log_{name}"), Counter);
            for (journal, counters) in &self.logs {
                sink.sample(&[("journal", journal)], get(counters) as f64);
            }
        }
        sink.family("larder_shipper_log_entries_dropped_total", Counter);
        for (journal, counters) in &self.logs {
            for (reason, count) in counters.dropped.all() {
                sink.sample(&[("journal", journal), ("reason", reason)], count as f64);
            }
        }
        sink.family("larder_shipper_log_requests_total", Counter);
        for (journal, counters) in &self.logs {
            for (outcome, count) in counters.requests.all() {
                sink.sample(&[("journal", journal), ("outcome", outcome)], count as f64);
            }
        }
        sink.family("larder_shipper_log_oldest_unshipped_seconds", Gauge);
        for (journal, counters) in &self.logs {
            let oldest = counters.oldest.get();
            let age = if oldest == 0 {
                0.0
            } else {
                (now - oldest).max(0) as f64 / 1e6
            };
            sink.sample(&[("journal", journal)], age);
        }
        let metrics = &self.metrics;
        // Names of Prometheus itself, so that alerts made for its remote write see ours.
        sink.one(
            "prometheus_remote_storage_samples_total",
            Counter,
            metrics.samples.get() as f64,
        );
        sink.one(
            "prometheus_remote_storage_bytes_total",
            Counter,
            metrics.bytes.get() as f64,
        );
        sink.family("prometheus_remote_storage_samples_dropped_total", Counter);
        for (reason, count) in metrics.dropped.all() {
            sink.sample(&[("reason", reason)], count as f64);
        }
        sink.family("larder_shipper_metric_requests_total", Counter);
        for (outcome, count) in metrics.requests.all() {
            sink.sample(&[("outcome", outcome)], count as f64);
        }
        let quarantined = metrics.quarantined.get() as f64;
        sink.one(
            "larder_shipper_metric_series_quarantined_total",
            Counter,
            quarantined,
        );
        let frames = metrics.waiting_frames.get() as f64;
        sink.one("larder_shipper_metric_waiting_frames", Gauge, frames);
        let bytes = metrics.waiting_bytes.get() as f64;
        sink.one("larder_shipper_metric_waiting_bytes", Gauge, bytes);
        let oldest = metrics.oldest.get();
        let age = if oldest == 0 {
            0.0
        } else {
            (now / 1000 - oldest).max(0) as f64 / 1e3
        };
        sink.one("larder_shipper_metric_oldest_waiting_seconds", Gauge, age);
        process(sink);
    }
}

/// The process itself, under the names that every exporter has for itself.
fn process(sink: &mut dyn Sink) {
    use Kind::{Counter, Gauge};
    let Some(stat) = Stat::read(Path::new("/proc"), "self") else {
        return;
    };
    let cpu = stat.user + stat.system;
    sink.one("process_cpu_seconds_total", Counter, cpu);
    for (name, value) in [
        ("virtual_memory_bytes", stat.virtual_bytes),
        ("resident_memory_bytes", stat.resident_bytes),
        ("start_time_seconds", stat.started),
    ] {
        sink.one(&format!("process_{name}"), Gauge, value);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // One of them is that of the folder.
        let count = files.count().saturating_sub(1);
        sink.one("process_open_fds", Gauge, count as f64);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(limit) = limit.current {
        sink.one("process_max_fds", Gauge, limit as f64);
    }
}
