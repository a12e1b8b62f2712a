//! Speed and size: journal entries to a receiver on the loopback interface, and one scrape of the
//! machine, beside `journalctl -o json` and node_exporter. `SHIPPER_BENCH_ENTRIES` sets how many.
//!
//! The numbers are CPU seconds of this process (reading, encoding, compressing, sending) without
//! those of the receiver, which is a child that throws everything away.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use shipper::clock::{Clock, SystemClock};
use shipper::counters::LogCounters;
use shipper::http::{Client, ClientSettings, Credentials, headers};
use shipper::journal::{Files, Place};
use shipper::logs::{KeepFile, Labels, Pipeline, Settings, Step};
use shipper::metrics::{Frame, Host, Snapshot, Units};

/// Argument that makes this program the receiver.
const RECEIVER: &str = "--as-receiver";

fn main() {
    if std::env::args().any(|argument| argument == RECEIVER) {
        return receive();
    }
    let entries: u64 = std::env::var("SHIPPER_BENCH_ENTRIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    scrape();
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
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.split_ascii_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
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
    let mut receiver = Command::new(std::env::current_exe().unwrap())
        .arg(RECEIVER)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    let mut stdout = BufReader::new(receiver.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut address).unwrap();
    let address: SocketAddr = address.trim().parse().unwrap();
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
    let _ = receiver.kill();
    let _ = receiver.wait();
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
    let before = cpu(libc::RUSAGE_SELF);
    let (mut samples, mut bytes) = (0, 0);
    for time in 0..rounds {
        let mut snapshot = Snapshot::new(&labels);
        Host::default().collect(&mut snapshot);
        Units::default().collect(&mut snapshot);
        samples = snapshot.len();
        bytes = Frame::new(time, &snapshot).body.len();
    }
    let spent = (cpu(libc::RUSAGE_SELF) - before) / rounds as f64;
    println!(
        "metrics: {:.2} ms CPU a scrape of {samples} samples, {bytes} bytes",
        spent * 1e3
    );
}

/// Answers every request with 204, reading as little as it can.
fn receive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let mut buffer = vec![0; 1 << 16];
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = Vec::new();
        'connection: loop {
            let end = loop {
                if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break 'connection,
                    Ok(count) => head.extend_from_slice(&buffer[..count]),
                }
            };
            let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
            let length = text.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split('\r').next().unwrap().parse().unwrap();
            let mut left = length.saturating_sub(head.len() - end);
            while left > 0 {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break 'connection,
                    Ok(count) => left -= count.min(left),
                }
            }
            head.clear();
            if stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .is_err()
            {
                break;
            }
        }
    }
}
