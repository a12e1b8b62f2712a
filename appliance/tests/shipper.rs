//! The program that ships, as a process: killed at any moment, misconfigured, told to reload.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use receiver_double::{Loki, Reply, Server};

const JOURNAL_REMOTE: &str = "/lib/systemd/systemd-journal-remote";
/// Four batches and more, so that each of three kills finds something on its way.
const LINES: u64 = 80_000;
/// Longest time that a thing may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The configuration that ships, with some text replaced.
fn configuration(folder: &Path, replaced: &[(&str, &str)]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/shipper.toml");
    let mut text = std::fs::read_to_string(source).unwrap();
    for (old, new) in replaced {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    let configs = folder.join("configs");
    std::fs::create_dir_all(&configs).unwrap();
    std::fs::write(configs.join("shipper.toml"), text).unwrap();
    configs
}

/// A running shipper, killed by SIGKILL at its end.
struct Shipper(Child);

impl Shipper {
    fn start(folder: &Path, configs: &Path, journal: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_appliance"))
            .args(["shipper", "run", "--config"])
            .arg(configs)
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--journal")
            .arg(journal)
            .env("RUNTIME_DIRECTORY", folder)
            .env("CREDENTIALS_DIRECTORY", folder.join("credentials"))
            .env_remove("NOTIFY_SOCKET")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A journal file of lines from an earlier boot.
fn journal(folder: &Path, lines: u64) -> Option<PathBuf> {
    if !Path::new(JOURNAL_REMOTE).exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{JOURNAL_REMOTE} is missing"
        );
        eprintln!("\n*** TEST LEFT OUT: install systemd-journal-remote ***\n");
        return None;
    }
    let journal = folder.join("journal");
    std::fs::create_dir(&journal).unwrap();
    let mut child = Command::new(JOURNAL_REMOTE)
        .arg(format!("--output={}", journal.join("a.journal").display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = now().as_micros() as u64 - 3_600_000_000;
    let mut out = std::io::BufWriter::new(child.stdin.take().unwrap());
    for at in 0..lines {
        write!(
            out,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n\
             _BOOT_ID=6c7c6013a26343b29e964691ff25d04c\n_SYSTEMD_UNIT=u.service\nMESSAGE=line {at}\n\n",
            start + at,
            1_000_000 + at
        )
        .unwrap();
    }
    drop(out);
    assert!(child.wait().unwrap().success());
    Some(journal)
}

fn loki() -> (Arc<Mutex<Loki>>, Arc<AtomicUsize>, Server) {
    let (loki, requests): (Arc<Mutex<Loki>>, Arc<AtomicUsize>) = Default::default();
    let (shared, counted) = (Arc::clone(&loki), Arc::clone(&requests));
    let server = Server::start(move |request| {
        let content = request.header("content-type").unwrap_or_default();
        let now = now().as_nanos() as i64;
        let (status, text) = shared.lock().unwrap().push(content, &request.body, now);
        counted.fetch_add(1, Ordering::SeqCst);
        Reply::status(status, text)
    });
    (loki, requests, server)
}

fn arrived(loki: &Mutex<Loki>) -> BTreeSet<u64> {
    let loki = loki.lock().unwrap();
    let number = |text: &str| text.strip_prefix("line ")?.parse().ok();
    loki.lines().filter_map(|line| number(&line.text)).collect()
}

#[test]
fn killed_again_and_again_it_ships_everything() {
    let folder = tempfile::tempdir().unwrap();
    let Some(journal) = journal(folder.path(), LINES) else {
        return;
    };
    let (loki, requests, server) = loki();
    let url = format!("[logs]\nurl = \"{}\"", server.url(""));
    let configs = configuration(folder.path(), &[("[logs]", &url)]);
    // Killed with SIGKILL when one more request has come, thrice; what is stored by then differs.
    for round in 1..=3 {
        let _shipper = Shipper::start(folder.path(), &configs, &journal);
        wait_until("a request", || requests.load(Ordering::SeqCst) >= round);
    }
    let _shipper = Shipper::start(folder.path(), &configs, &journal);
    wait_until("the last line", || arrived(&loki).len() as u64 == LINES);
    let loki = loki.lock().unwrap();
    assert_eq!(loki.refused, 0);
    for lines in loki.streams.values() {
        assert!(lines.is_sorted_by_key(|line| line.time), "out of order");
    }
}

#[test]
fn credentials_are_read_again_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let Some(journal) = journal(folder.path(), 10) else {
        return;
    };
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let server = Server::start(move |request| {
        let who = request
            .header("authorization")
            .unwrap_or_default()
            .to_owned();
        let right = who == "Basic dTpuZXc=";
        log.lock().unwrap().push(who);
        Reply::status(if right { 204 } else { 401 }, "")
    });
    // No address in the configuration, and none by credential yet: it has nothing to do and is well.
    let configs = configuration(folder.path(), &[]);
    let credentials = folder.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let shipper = Shipper::start(folder.path(), &configs, &journal);
    let status = || {
        Command::new(env!("CARGO_BIN_EXE_appliance"))
            .args(["shipper", "status", "--runtime"])
            .arg(folder.path())
            .output()
            .unwrap()
    };
    wait_until("a status", || status().status.success());
    assert!(String::from_utf8_lossy(&status().stdout).contains("no receiver is configured"));
    let reload = || {
        let pid = rustix::process::Pid::from_child(&shipper.0);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    for (name, value) in [
        ("loki-url", server.url("/loki/api/v1/push")),
        ("loki-username", "u".into()),
        ("loki-password", "old".into()),
    ] {
        std::fs::write(credentials.join(name), value).unwrap();
    }
    reload();
    wait_until("a request that is refused", || {
        !seen.lock().unwrap().is_empty()
    });
    assert_eq!(seen.lock().unwrap()[0], "Basic dTpvbGQ=");
    std::fs::write(credentials.join("loki-password"), "new").unwrap();
    // It waits a minute after a refusal, unless it is told that there is something new.
    reload();
    wait_until("one that is not", || {
        seen.lock()
            .unwrap()
            .iter()
            .any(|who| who == "Basic dTpuZXc=")
    });
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = |configs: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_appliance"))
            .args(["shipper", "run", "--config"])
            .arg(configs)
            .arg("--state")
            .arg(folder.path().join("state"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (old, new, said) in [
        (
            "host_seconds = [30, 60]",
            "host_seconds = [30]",
            "host_seconds",
        ),
        (
            "host_seconds = [30, 60]",
            "host_seconds = [0, 60]",
            "0 seconds",
        ),
        ("service_job", "servise_job", "servise_job"),
        ("[logs]", "[logs", "shipper.toml"),
    ] {
        let configs = configuration(folder.path(), &[(old, new)]);
        let error = run(&configs);
        assert!(
            error.contains(said) && error.contains("shipper.toml:"),
            "{new}: {error}"
        );
    }
    std::fs::remove_dir_all(folder.path().join("configs")).unwrap();
    assert!(run(&folder.path().join("configs")).contains("shipper.toml"));
}
