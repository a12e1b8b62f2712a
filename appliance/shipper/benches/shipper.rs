//! Speed and size: journal entries to a receiver on the loopback interface beside `journalctl -o
//! json`, and scrapes of the machine beside node_exporter, Prometheus in agent mode and vmagent.
//! `SHIPPER_BENCH_ENTRIES` sets how many entries.
//!
//! The numbers are CPU seconds of the process that does the work (reading, encoding, compressing,
//! sending) without those of the receiver, which is a child that throws everything away.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shipper::clock::{Clock, SystemClock};
use shipper::counters::LogCounters;
use shipper::http::{Client, ClientSettings, Credentials, headers};
use shipper::journal::{Files, Place};
use shipper::logs::{KeepFile, Labels, Pipeline, Settings, Step};
use shipper::metrics::{Frame, Host, Snapshot, Units};

/// Argument that makes this program the receiver.
const RECEIVER: &str = "--as-receiver";
/// Scrapes that peers are measured over, a second apart.
const SCRAPES: u64 = 20;

fn main() {
    if std::env::args().any(|argument| argument == RECEIVER) {
        return receive();
    }
    let entries: u64 = std::env::var("SHIPPER_BENCH_ENTRIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    scrape();
    peers();
    let remote = Path::new("/lib/systemd/systemd-journal-remote");
    if !remote.exists() {
        println!("logs: left out; install the Debian package systemd-journal-remote");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    fill(remote, &journal, entries);
    ship(&journal, &folder.path().join("cursor"), entries);
    naive(&journal, entries);
}

/// CPU seconds, user and system, of this process (its threads too) or of its ended children.
fn cpu(who: libc::c_int) -> f64 {
    // SAFETY: all zeros is a valid rusage, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn anonymous_kib() -> u64 {
    status_kib("self", "RssAnon:")
}

/// A size of proc_pid_status(5) in KiB.
fn status_kib(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().split_ascii_whitespace().next();
    number.unwrap().parse().unwrap()
}

/// CPU seconds that another process has used (proc_pid_stat(5)).
fn cpu_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks = rest.split_ascii_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.map(|word| word.parse::<f64>().unwrap()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// A journal of entries with 20 fields each.
fn fill(remote: &Path, journal: &Path, entries: u64) {
    let mut child = Command::new(remote)
        .arg(format!("--output={}", journal.join("a.journal").display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = std::io::BufWriter::new(child.stdin.take().unwrap());
    let now = (SystemClock::new().now() / 1000) as u64 - 3_600_000_000;
    for at in 0..entries {
        let unit = at % 8;
        write!(
            out,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n\
             _BOOT_ID=6c7c6013a26343b29e964691ff25d04c\nPRIORITY=6\n_SYSTEMD_UNIT=u{unit}.service\n\
             _PID={unit}\n_UID=0\n_GID=0\n_COMM=appliance\n_EXE=/usr/bin/appliance\n\
             _CMDLINE=/usr/bin/appliance cache\n_CAP_EFFECTIVE=0\n_SYSTEMD_SLICE=system.slice\n\
             _SYSTEMD_CGROUP=/system.slice/u{unit}.service\n_MACHINE_ID=6c7c6013a26343b29e964691ff25d04c\n\
             _HOSTNAME=cache-1\n_TRANSPORT=journal\nSYSLOG_IDENTIFIER=appliance\nMETHOD=GET\n\
             PATH_GROUP=xcode\nSTATUS=200\n_SOURCE_REALTIME_TIMESTAMP={}\n\
             MESSAGE=GET /api/cache/cas/{:016x}{:016x} 200 {} bytes in {} us\n\n",
            now + at, 1_000_000 + at, now + at,
            at.wrapping_mul(0x9e37_79b9_7f4a_7c15), at, at * 37 % 100_000, at * 11 % 5000,
        )
        .unwrap();
    }
    drop(out);
    assert!(child.wait().unwrap().success());
}

fn ship(journal: &Path, keep: &Path, entries: u64) {
    let receiver = ReceiverProcess::start();
    let address = receiver.address;
    let url = format!("http://{address}/loki/api/v1/push");
    let mut client = ClientSettings::new(&url, "/", Credentials::None, None, None, false).unwrap();
    client.headers = headers(false);
    let labels = Labels {
        instance: "cache-1".into(),
        service: ("cache-nginx".into(), "cache-docker".into()),
        host: ("host".into(), "larder".into()),
        service_units: vec!["u0.service".into()],
        stream: None,
        metadata: vec![("environment".into(), "production".into())],
    };
    let counters = Arc::new(LogCounters::default());
    let place = Place::Folder(journal.to_owned());
    let mut pipeline = Pipeline::new(
        Settings::new(labels),
        move || Files::open(place.clone()),
        Client::new(client).unwrap(),
        SystemClock::new(),
        KeepFile(keep.to_owned()),
        Arc::clone(&counters),
    );
    // As many secrets as a machine has.
    let key = secrets::fingerprint::Key::new().unwrap();
    let known: Vec<_> = (0..16)
        .flat_map(|secret| key.of(format!("correct horse battery staple {secret}").as_bytes()))
        .collect();
    pipeline.redactor().lock().unwrap().set(&key, &known);
    let (begin, before) = (Instant::now(), cpu(libc::RUSAGE_SELF));
    let mut most = 0;
    loop {
        match pipeline.step(true) {
            Step::Progress => most = most.max(anonymous_kib()),
            Step::Idle(_) => break,
            Step::Wait(_) => panic!("{}", counters.problem()),
        }
    }
    let spent = cpu(libc::RUSAGE_SELF) - before;
    assert_eq!(counters.shipped.get(), entries);
    println!(
        "logs: {entries} entries, {:.0} per CPU second ({spent:.2} s, {:.2} s wall), RssAnon {:.1} MiB, {:.1} MiB sent",
        entries as f64 / spent,
        begin.elapsed().as_secs_f64(),
        most as f64 / 1024.0,
        counters.bytes.get() as f64 / (1 << 20) as f64,
    );
}

/// The receiver, which ends with the value.
struct ReceiverProcess {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl ReceiverProcess {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(RECEIVER)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut address).unwrap();
        Self {
            child,
            _stdout: stdout,
            address: address.trim().parse().unwrap(),
        }
    }
}

impl Drop for ReceiverProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn naive(journal: &Path, entries: u64) {
    let before = cpu(libc::RUSAGE_CHILDREN);
    let status = Command::new("journalctl")
        .args(["-o", "json", "-D"])
        .arg(journal)
        .stdout(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("journalctl: left out");
        return;
    }
    let spent = cpu(libc::RUSAGE_CHILDREN) - before;
    println!(
        "journalctl -o json to nowhere: {:.0} per CPU second",
        entries as f64 / spent
    );
}

fn scrape() {
    let rounds = 100;
    let labels = vec![
        ("instance".to_owned(), "h".to_owned()),
        ("job".to_owned(), "node".to_owned()),
    ];
    // As the shipper keeps it: connections are counted by the first scrape, and then every two minutes.
    let host = Host::default();
    let first = cpu(libc::RUSAGE_SELF);
    host.collect(&mut Snapshot::new(&labels));
    let before = cpu(libc::RUSAGE_SELF);
    let first = before - first;
    let (mut samples, mut bytes) = (0, 0);
    for time in 0..rounds {
        let mut snapshot = Snapshot::new(&labels);
        host.collect(&mut snapshot);
        Units::default().collect(&mut snapshot);
        samples = snapshot.len();
        bytes = Frame::new(time, &snapshot).body.len();
    }
    let spent = (cpu(libc::RUSAGE_SELF) - before) / rounds as f64;
    println!(
        "metrics: {:.2} ms CPU a scrape of {samples} samples, {bytes} bytes; {:.2} ms with a count of connections",
        spent * 1e3,
        first * 1e3
    );
}

/// What others need for the same: node_exporter for a scrape, and agents that scrape it and send what
/// they get.
fn peers() {
    let find = |package, name: &str| support::program(package, &[&format!("/usr/bin/{name}")]);
    let Some(exporter) = find("prometheus-node-exporter", "prometheus-node-exporter") else {
        return;
    };
    let exporter = support::Daemon::start(
        |address| {
            let mut command = Command::new(&exporter);
            command.arg(format!("--web.listen-address={address}"));
            command
        },
        "Listening on",
    );
    let url = format!("http://{}/metrics", exporter.address);
    let mut client = support::client(&url);
    client.get(16 << 20).unwrap();
    let before = cpu_of(exporter.id());
    let mut bytes = 0;
    for _ in 0..100 {
        bytes = client.get(16 << 20).unwrap().1.len();
    }
    println!(
        "node_exporter: {:.2} ms CPU a scrape of {bytes} bytes, RSS {:.1} MiB",
        (cpu_of(exporter.id()) - before) * 10.0,
        status_kib(&exporter.id().to_string(), "VmRSS:") as f64 / 1024.0,
    );
    let receiver = ReceiverProcess::start();
    let folder = tempfile::tempdir().unwrap();
    let scrapes = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: node\n  static_configs:\n  - targets: [\"{}\"]\n",
        exporter.address
    );
    let to = format!("http://{}/api/v1/write", receiver.address);
    if let Some(program) = find("prometheus", "prometheus") {
        let config = folder.path().join("agent.yml");
        std::fs::write(
            &config,
            format!("{scrapes}remote_write:\n- url: \"{to}\"\n"),
        )
        .unwrap();
        let data = folder.path().join("agent");
        let command = |address| {
            let mut command = Command::new(&program);
            command
                .arg("--enable-feature=agent")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.agent.path={}", data.display()))
                .arg(format!("--web.listen-address={address}"));
            command
        };
        agent("Prometheus agent", &command, "Server is ready");
    }
    if let Some(program) = find("victoria-metrics (or vmagent)", "vmagent") {
        let config = folder.path().join("vmagent.yml");
        std::fs::write(&config, &scrapes).unwrap();
        let data = folder.path().join("vmagent");
        let command = |address| {
            let mut command = Command::new(&program);
            command
                .arg(format!("-promscrape.config={}", config.display()))
                .arg(format!("-remoteWrite.url={to}"))
                .arg(format!("-remoteWrite.tmpDataPath={}", data.display()))
                .arg(format!("-httpListenAddr={address}"));
            command
        };
        agent("vmagent", &command, "started vmagent");
    }
}

/// An agent that scrapes node_exporter once a second.
fn agent(name: &str, command: &dyn Fn(SocketAddr) -> Command, ready: &str) {
    let daemon = support::Daemon::start(command, ready);
    // Its start is no part of the figure.
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu_of(daemon.id());
    std::thread::sleep(Duration::from_secs(SCRAPES));
    println!(
        "{name}: {:.2} ms CPU a scrape, beside those of node_exporter; RSS {:.1} MiB",
        (cpu_of(daemon.id()) - before) * 1e3 / SCRAPES as f64,
        status_kib(&daemon.id().to_string(), "VmRSS:") as f64 / 1024.0,
    );
}

/// Answers every request with 204, reading as little as it can.
fn receive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        std::thread::spawn(|| drop(discard(stream.unwrap())));
    }
}

fn discard(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut head = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => head.extend_from_slice(&buffer[..count]),
            }
        };
        let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split('\r').next().unwrap().parse().unwrap();
        let mut left = length.saturating_sub(head.len() - end);
        while left > 0 {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => left -= count.min(left),
            }
        }
        head.clear();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
