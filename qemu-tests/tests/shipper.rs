//! The shipper of a booted machine and receivers on the host: what arrives, what an outage of the
//! network loses (nothing), and what a crash leaves for the next boot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Setup, TestMachine, scenario};
use receiver_double::remote_write::{self, Series};
use receiver_double::{Loki, Reply, Server};
use vm::{Credential, Patience};

/// Two boots, and an outage of 90 s.
const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(240),
    cpu_seconds: 900.0,
};
/// The host's address on the network that logs and metrics take.
const HOST: &str = "10.0.3.100";
/// Seconds without that network, and lines written meanwhile.
const OUTAGE: usize = 90;
/// Lines that nobody has shipped when the machine crashes.
const LAST_WORDS: usize = 40;

/// Time since 1970.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// What has arrived.
#[derive(Clone, Default)]
struct Received {
    loki: Arc<Mutex<Loki>>,
    series: Arc<Mutex<Vec<Series>>>,
}

impl Received {
    fn receivers(&self) -> (Server, Server) {
        let loki = Arc::clone(&self.loki);
        let logs = Server::start(move |request| {
            if request.line != "POST /loki/api/v1/push HTTP/1.1" {
                return Reply::status(404, "");
            }
            let now = now().as_nanos() as i64;
            let content = request.header("content-type").unwrap_or_default();
            let mut loki = loki.lock().unwrap_or_else(PoisonError::into_inner);
            let (status, text) = loki.push(content, &request.body, now);
            Reply::status(status, text)
        });
        let series = Arc::clone(&self.series);
        let metrics = Server::start(move |request| {
            let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
            match remote_write::decode(&request.body) {
                Ok(new) => series.extend(new),
                Err(error) => return Reply::status(400, error),
            }
            Reply::status(204, "")
        });
        (logs, metrics)
    }

    /// Texts of the lines that begin with `prefix`, with the labels of their streams.
    fn lines(&self, prefix: &str) -> Vec<(String, String)> {
        let loki = self.loki.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for (labels, lines) in &loki.streams {
            let texts = lines.iter().map(|line| &line.text);
            let texts = texts.filter(|text| text.starts_with(prefix));
            found.extend(texts.map(|text| (labels.clone(), text.clone())));
        }
        found
    }

    /// Value and time in ms of each sample of a name whose labels are among these.
    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(f64, i64)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |series: &&Series| {
            series.label("__name__") == Some(name)
                && !series.is_stale()
                && labels
                    .iter()
                    .all(|(name, value)| series.label(name) == Some(value))
        };
        let found = series.iter().filter(wanted);
        found
            .map(|series| (series.value(), series.samples[0].1))
            .collect()
    }
}

/// Waits until `there` is true of what has arrived.
fn until(machine: &TestMachine, what: &str, mut there: impl FnMut() -> bool) -> Result<()> {
    let running = machine.running()?;
    let look = || Ok(there().then_some(()));
    Ok(running.wait_for(what, PATIENCE, Duration::from_millis(300), look)?)
}

/// What timesyncd does when a server has told it the time; there is none here.
fn clock_is_right(machine: &mut TestMachine) -> Result<()> {
    machine.wait_for_unit("larder-shipper.service")?;
    machine
        .succeed("sudo touch /run/systemd/timesync/synchronized")
        .map(drop)
}

#[test]
fn logs_and_metrics_of_a_machine() {
    let received = Received::default();
    let (logs, metrics) = received.receivers();
    let relay = env!("CARGO_BIN_EXE_relay").replace(',', ",,");
    let forward = |port: u16, server: &Server| {
        let to = server.address().port();
        format!(",guestfwd=tcp:{HOST}:{port}-cmd:{relay} {to}")
    };
    let network = format!(
        "user,id=shipping,restrict=on,net=10.0.3.0/24{}{}",
        forward(3100, &logs),
        forward(9090, &metrics)
    );
    let setup = Setup::new("logs_and_metrics_of_a_machine").patience(PATIENCE);
    let setup = setup.machine(move |machine| {
        let card = "virtio-net-pci,id=shipping-card,netdev=shipping,romfile=";
        machine
            .extra_args(["-netdev", &network, "-device", card])
            .credential(Credential::smbios(
                "loki-url",
                format!("http://{HOST}:3100"),
            ))
            .credential(Credential::smbios(
                "prom-remote-write-url",
                format!("http://{HOST}:9090"),
            ))
    });
    scenario(setup, |machine| {
        machine.boot()?;
        clock_is_right(machine)?;
        machine.check(
            "logs arrive from the first line on, and are labelled",
            |machine| first_logs(machine, &received),
        );
        machine.check("lines of the journal of access lines, too", |machine| {
            machine.succeed(
                "sudo systemd-run --quiet --wait -p LogNamespace=larder-access echo 'an access line'",
            )?;
            until(machine, "the access line", || !received.lines("an access line").is_empty())?;
            let (labels, _) = &received.lines("an access line")[0];
            let wanted = r#"{app="cache-docker", instance="dev", job="cache-nginx", stream="access"}"#;
            ensure!(labels == wanted, "{labels}");
            Ok(())
        });
        machine.check("metrics arrive, and are labelled", |machine| {
            first_metrics(machine, &received)
        });
        machine.check("it says that all is well", |machine| {
            machine
                .wait_until_succeeds("appliance shipper status")
                .map(drop)
        });
        machine.check("an outage of the network loses nothing", |machine| {
            outage(machine, &received)
        });
        machine.check(
            "what a machine said before it crashed comes from the next boot",
            |machine| crash(machine, &received),
        );
        machine.check("the receiver refused nothing", |_| {
            let loki = received.loki.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(loki.refused == 0, "{} lines", loki.refused);
            Ok(())
        });
        machine.shut_down()
    });
}

fn first_logs(machine: &mut TestMachine, received: &Received) -> Result<()> {
    let service =
        r#"{app="cache-docker", instance="dev", job="cache-nginx", unit="larder-cache.service"}"#;
    let kernel = r#"{app="larder", instance="dev", job="host", unit="kernel"}"#;
    until(machine, "the first logs", || {
        let loki = received.loki.lock().unwrap_or_else(PoisonError::into_inner);
        loki.streams.contains_key(service) && loki.streams.contains_key(kernel)
    })?;
    let loki = received.loki.lock().unwrap_or_else(PoisonError::into_inner);
    let first = loki.streams[kernel]
        .first()
        .context("no line of the kernel")?;
    ensure!(
        first.text.starts_with("Linux version"),
        "the first line: {}",
        first.text
    );
    for (name, value) in [
        ("environment", "development"),
        ("region", "local"),
        ("level", "info"),
    ] {
        let found = loki.streams[service]
            .iter()
            .any(|line| line.metadata(name) == Some(value));
        ensure!(found, "no line of the service has {name}={value}");
    }
    Ok(())
}

fn first_metrics(machine: &mut TestMachine, received: &Received) -> Result<()> {
    let wanted: &[(&str, &[(&str, &str)])] = &[
        ("up", &[("job", "cache"), ("instance", "dev")]),
        (
            "cache_nginx_http_responses_total",
            &[("job", "cache"), ("instance", "dev")],
        ),
        ("up", &[("job", "node"), ("instance", "dev")]),
        (
            "node_uname_info",
            &[("job", "node"), ("instance", "dev"), ("sysname", "Linux")],
        ),
        ("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user")]),
        (
            "node_filesystem_size_bytes",
            &[("mountpoint", "/cas"), ("fstype", "ext4")],
        ),
        ("node_filesystem_size_bytes", &[("mountpoint", "/var")]),
        ("node_timex_sync_status", &[]),
        ("node_disk_io_time_seconds_total", &[("device", "vda")]),
        ("node_systemd_units", &[("state", "active")]),
        ("node_schedstat_waiting_seconds_total", &[("cpu", "0")]),
        ("node_pressure_io_stalled_seconds_total", &[]),
        ("node_nf_conntrack_entries", &[]),
        ("node_tcp_connection_states", &[("state", "established")]),
        ("node_textfile_scrape_error", &[]),
        ("larder_store_evictable_bytes", &[("job", "cache")]),
        ("larder_store_used_bytes", &[("job", "cache")]),
        ("larder_store_evicted_bytes_total", &[("job", "cache")]),
        (
            "node_systemd_socket_accepted_connections_total",
            &[("name", "larder-cache-https.socket")],
        ),
        (
            "larder_unit_cpu_seconds_total",
            &[("unit", "larder-cache.service")],
        ),
        (
            "larder_unit_memory_bytes",
            &[("unit", "larder-cache.service")],
        ),
        ("larder_unit_tasks", &[("unit", "larder-cache.service")]),
        (
            "larder_unit_io_read_bytes_total",
            &[("unit", "larder-cache.service")],
        ),
        (
            "namedprocess_namegroup_num_procs",
            &[("groupname", "cache"), ("job", "process")],
        ),
        (
            "larder_shipper_log_entries_shipped_total",
            &[("journal", "system")],
        ),
        (
            "larder_shipper_log_oldest_unshipped_seconds",
            &[("journal", "access")],
        ),
    ];
    until(machine, "a scrape of each target", || {
        ["cache", "node", "process"]
            .iter()
            .all(|job| !received.samples("up", &[("job", job)]).is_empty())
    })?;
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(name, labels)| received.samples(name, labels).is_empty())
        .collect();
    ensure!(missing.is_empty(), "missing: {missing:?}");
    for job in ["cache", "node", "process"] {
        let up = received.samples("up", &[("job", job)]);
        ensure!(up[0].0 == 1.0, "{job} is not up");
    }
    let processes = received.samples(
        "namedprocess_namegroup_num_procs",
        &[("groupname", "cache")],
    );
    ensure!(processes[0].0 == 1.0, "{processes:?}");
    let series = received
        .series
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let failing = series.iter().filter(|series| {
        series.label("__name__") == Some("node_scrape_collector_success") && series.value() != 1.0
    });
    let failing: Vec<_> = failing.map(|series| series.label("collector")).collect();
    ensure!(failing.is_empty(), "collectors that fail: {failing:?}");
    Ok(())
}

fn link(machine: &TestMachine, up: bool) -> Result<()> {
    let arguments = serde_json::json!({ "name": "shipping-card", "up": up });
    Ok(machine.running()?.qmp("set_link", arguments).map(drop)?)
}

/// Texts `WORD 0`, `WORD 1`, …, each once and in order, in streams that hold `labels`.
fn complete(received: &Received, word: &str, count: usize, labels: &str) -> Result<()> {
    let lines = received.lines(&format!("{word} "));
    let texts: Vec<_> = lines.iter().map(|(_, text)| text.clone()).collect();
    let wanted: Vec<_> = (0..count).map(|at| format!("{word} {at}")).collect();
    ensure!(
        texts == wanted,
        "{} of {count} lines: {texts:?}",
        texts.len()
    );
    let elsewhere = lines.iter().find(|(stream, _)| !stream.contains(labels));
    ensure!(elsewhere.is_none(), "without {labels}: {elsewhere:?}");
    Ok(())
}

fn outage(machine: &mut TestMachine, received: &Received) -> Result<()> {
    link(machine, false)?;
    machine.succeed(&format!(
        "sudo systemd-run --quiet --unit=planted sh -c \
         'i=0; while [ $i -lt {OUTAGE} ]; do echo \"planted $i\"; i=$((i+1)); sleep 1; done'"
    ))?;
    machine.wait_until_succeeds("! systemctl --quiet is-active planted.service")?;
    ensure!(
        received
            .lines(&format!("planted {}", OUTAGE - 1))
            .is_empty(),
        "it arrived without a network"
    );
    link(machine, true)?;
    let back = now().as_millis() as i64;
    until(machine, "the last line of the outage", || {
        !received
            .lines(&format!("planted {}", OUTAGE - 1))
            .is_empty()
    })?;
    complete(received, "planted", OUTAGE, r#"unit="planted.service""#)?;
    // Scrapes of the outage have waited and are there, a minute apart, as is one after it.
    until(machine, "metrics of the time after the outage", || {
        received
            .samples("node_load1", &[])
            .iter()
            .any(|sample| sample.1 > back)
    })?;
    let mut times: Vec<_> = received
        .samples("node_load1", &[])
        .iter()
        .map(|sample| sample.1)
        .collect();
    times.sort_unstable();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    ensure!(
        longest.is_some_and(|longest| longest < 90_000),
        "a scrape is missing: {times:?}"
    );
    Ok(())
}

fn crash(machine: &mut TestMachine, received: &Received) -> Result<()> {
    machine.succeed("sudo systemctl stop larder-shipper.service")?;
    machine.succeed(&format!(
        "sudo systemd-run --quiet --wait --unit=dying sh -c \
         'i=0; while [ $i -lt {LAST_WORDS} ]; do echo \"dying $i\"; i=$((i+1)); done'"
    ))?;
    machine.succeed("sudo journalctl --sync")?;
    ensure!(
        received.lines("dying ").is_empty(),
        "somebody has shipped it already"
    );
    machine.hard_reset()?;
    machine.wait_up()?;
    clock_is_right(machine)?;
    until(machine, "the last words", || {
        received.lines("dying ").len() >= LAST_WORDS
    })?;
    complete(received, "dying", LAST_WORDS, r#"replay="boot""#)?;
    // And then those of the new boot, in streams of their own.
    let boots = |received: &Received| received.lines("Linux version").len();
    until(machine, "the logs of the second boot", || {
        boots(received) == 2
    })
}
