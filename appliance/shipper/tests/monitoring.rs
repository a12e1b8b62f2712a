//! `configs/monitoring`: rules and dashboards hold together, and ask for nothing that nobody sends.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shipper::counters::{LogCounters, MetricCounters};
use shipper::metrics::{Group, Host, Own, Secrets, TextSink, Units};
use support::{client, program};

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

/// What the cache shows at `/metrics`.
fn cache() -> String {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("cas");
    std::fs::create_dir(&storage).unwrap();
    let settings = cache::Settings {
        storage,
        durability: Default::default(),
        state: Some(folder.path().into()),
        auth: cache::AuthSettings::default(),
        access_log: None,
        acme: None,
        credentials: cache::Credentials::default(),
        max_cas_bytes: 1 << 20,
        plain_networks: Vec::new(),
        signed_only: false,
        drain: Duration::ZERO,
        names: vec!["localhost".into()],
        version: "1".into(),
        timeouts: cache::Timeouts::default(),
        transport: cache::TransportSettings::default(),
    };
    let any = ["127.0.0.1:0".parse().unwrap()];
    let listeners = cache::Listeners::bind(&any, &any, &any).unwrap();
    let address = listeners.metrics[0].local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = runtime
        .block_on(cache::Server::new(settings, listeners))
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(server.run(async {
        let _ = stopped.await;
    }));
    let (status, body) = client(&format!("http://{address}/metrics"))
        .get(16 << 20)
        .unwrap();
    assert_eq!(status, 200);
    drop(stop);
    runtime.block_on(running).unwrap();
    String::from_utf8(body).unwrap()
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
    let cache = cache();
    let families = sink.text.lines().chain(cache.lines());
    let families = families.filter_map(|line| line.strip_prefix("# TYPE "));
    let series = families.flat_map(|family| match family.split_once(' ').unwrap() {
        (name, "histogram") => ["_bucket", "_count", "_sum"]
            .map(|suffix| format!("{name}{suffix}"))
            .to_vec(),
        (name, _) => vec![name.to_owned()],
    });
    series
        .chain(SCRAPES.iter().map(|name| (*name).to_owned()))
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
