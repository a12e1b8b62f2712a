//! `configs/monitoring`: rules and dashboards hold together, and ask for nothing that nobody sends.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use shipper::counters::{LogCounters, MetricCounters};
use shipper::metrics::{Group, Host, Own, Secrets, TextSink, Units};
use support::program;

/// What the cache shows at `/metrics`, as far as it is asked for here.
const CACHE: &[&str] = &[
    "cache_nginx_http_responses_total",
    "cache_nginx_request_duration_seconds_bucket",
    "larder_cache_account_responses_total",
    "larder_cache_certificate_expiry_seconds",
    "larder_cache_connections_total",
    "larder_cache_tls_handshake_failures_total",
    "larder_store_evictable_bytes",
    "larder_store_capacity_bytes",
    "larder_store_evicted_bytes_total",
    "larder_store_up",
    "larder_store_used_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "tuist_cache_xcode_download_bytes",
    "tuist_cache_xcode_download_disk_hits_total",
    "tuist_cache_xcode_download_disk_misses_total",
    "tuist_cache_xcode_upload_bytes",
    "tuist_cache_xcode_upload_errors_total",
    "tuist_cache_xcode_upload_exists_total",
    "tuist_cache_xcode_upload_success_total",
];
/// What the fetcher of secrets says of them, on a machine that has one.
const SECRETS: &[&str] = &["larder_secret_state"];
/// What every scrape has.
const SCRAPES: &[&str] = &["up", "scrape_duration_seconds", "scrape_samples_scraped"];
/// What a machine need not have: a file system, a disk, a card of its own.
const HARDWARE: &[&str] = &[
    "node_systemd_",
    "node_filesystem_",
    "node_disk_",
    "node_network_",
    "node_pressure_",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/monitoring")
}

fn promtool(arguments: &[&str], file: &Path) -> Option<()> {
    let promtool = program("prometheus (or promtool)", &["/usr/bin/promtool"])?;
    let output = Command::new(promtool)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    Some(())
}

/// Names of all that this program and the cache send.
fn sent() -> BTreeSet<String> {
    let metrics = Arc::new(MetricCounters::default());
    let log = Arc::new(LogCounters::default());
    let mut sink = TextSink::default();
    Host::default().collect(&mut sink);
    Units::default().collect(&mut sink);
    Own {
        logs: vec![("system".into(), log)],
        metrics,
    }
    .collect(&mut sink);
    Secrets::default().collect(&mut sink);
    let processes = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(processes.path(), std::process::id().to_string()).unwrap();
    let mut group = Group::of_unit("cache", "larder-cache.service");
    group.processes = processes.path().to_owned();
    group.collect(&mut sink);
    let families = sink
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let families = families.map(|line| line.split(' ').next().unwrap().to_owned());
    families
        .chain(
            CACHE
                .iter()
                .chain(SECRETS)
                .chain(SCRAPES)
                .map(|name| (*name).to_owned()),
        )
        .collect()
}

/// Names before the `{` of each selector of PromQL.
fn asked(expression: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in expression.match_indices('{') {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let before = &expression[..at];
        let start = before.rfind(|c| !name(c)).map_or(0, |end| end + 1);
        assert!(start < at, "a selector without a name in {expression}");
        names.push(&expression[start..at]);
    }
    names
}

fn alerts() -> String {
    std::fs::read_to_string(folder().join("alerts.yml")).unwrap()
}

/// Expressions of the rules: each `expr:`, whether on its line or in the lines below it.
fn expressions(rules: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in rules.split("        expr: ").skip(1) {
        let end = part
            .find("\n        for:")
            .or_else(|| part.find("\n        labels:"));
        found.push(
            part[..end.unwrap()]
                .trim_start_matches('|')
                .trim()
                .to_owned(),
        );
    }
    found
}

/// Title and expression of each panel that asks Prometheus.
fn panels(dashboard: &serde_json::Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            if target["datasource"]["type"] == "prometheus" {
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                found.push((text(&panel["title"]), text(&target["expr"])));
            }
        }
    }
    found
}

fn dashboards() -> Vec<(String, serde_json::Value)> {
    let files = std::fs::read_dir(folder().join("dashboards")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files
        .map(|path| {
            let text = std::fs::read(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&text).unwrap())
        })
        .collect()
}

#[test]
fn promtool_takes_the_rules_and_their_tests() {
    if promtool(&["check", "rules"], &folder().join("alerts.yml")).is_some() {
        promtool(&["test", "rules"], &folder().join("alerts.test.yml"));
    }
}

#[test]
fn each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let rules = alerts();
    let tests = std::fs::read_to_string(folder().join("alerts.test.yml")).unwrap();
    let names: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 15);
    for name in names {
        let cases: Vec<_> = tests
            .split("- alertname: ")
            .filter(|case| case.lines().next() == Some(name))
            .collect();
        let fires = |case: &&&str| case.contains("exp_alerts:");
        assert_eq!(cases.iter().filter(fires).count(), 1, "{name} fires");
        assert!(cases.iter().any(|case| !fires(&case)), "{name} is quiet");
    }
}

#[test]
fn nothing_is_asked_that_nobody_sends() {
    let sent = sent();
    let mut asked_for: Vec<(String, String)> = expressions(&alerts())
        .into_iter()
        .map(|expression| ("alerts.yml".to_owned(), expression))
        .collect();
    for (name, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], name.as_str());
        let panels = panels(&dashboard);
        assert!(panels.len() > 10, "{name}");
        asked_for.extend(
            panels
                .into_iter()
                .map(|(title, expr)| (format!("{name}: {title}"), expr)),
        );
    }
    for (place, expression) in &asked_for {
        let names = asked(expression);
        assert!(!names.is_empty(), "{place}: {expression}");
        for name in names {
            let hardware = HARDWARE.iter().any(|prefix| name.starts_with(prefix));
            assert!(
                sent.contains(name) || hardware,
                "{place}: nobody sends {name}"
            );
        }
    }
}

#[test]
fn the_expressions_of_the_dashboards_are_promql() {
    let mut rules = "groups:\n- name: panels\n  rules:\n".to_owned();
    let mut count = 0;
    for (_, dashboard) in dashboards() {
        for (_, expression) in panels(&dashboard) {
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*");
            let expression = serde_json::to_string(&expression).unwrap();
            rules += &format!("  - record: panel:{count}\n    expr: {expression}\n");
            count += 1;
        }
    }
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    promtool(&["check", "rules"], file.path());
}
