//! Against journal files that systemd-journal-remote writes, through libsystemd.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use receiver_double::{Loki, Reply, Server};
use secrets::fingerprint::Key;
use shipper::clock::{Clock, SystemClock};
use shipper::counters::LogCounters;
use shipper::http::{Client, ClientSettings, Credentials};
use shipper::journal::{Entry, Files, Journal, Place};
use shipper::logs::{KeepFile, Labels, Pipeline, Settings, Step};
use support::program;

const BOOT: &str = "6c7c6013a26343b29e964691ff25d04c";

fn journal_remote() -> Option<PathBuf> {
    program(
        "systemd-journal-remote",
        &["/lib/systemd/systemd-journal-remote"],
    )
}

/// Entries in the export format (systemd.dev, "Journal Export Formats").
fn export(range: std::ops::Range<u64>, message: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let now = (SystemClock::new().now() / 1000) as u64 - 3_600_000_000;
    let mut out = Vec::new();
    for at in range {
        let _ = write!(
            out,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={BOOT}\nPRIORITY=6\n\
             _SYSTEMD_UNIT=u{}.service\n_PID={}\n_CAP_EFFECTIVE=0\n",
            now + at,
            1_000_000 + at,
            at % 3,
            at % 3
        );
        let message = message(at);
        out.extend_from_slice(b"MESSAGE\n");
        out.extend_from_slice(&(message.len() as u64).to_le_bytes());
        out.extend_from_slice(&message);
        out.extend_from_slice(b"\n\n");
    }
    out
}

fn write(remote: &Path, file: &Path, entries: &[u8]) {
    let mut child = Command::new(remote)
        .arg(format!("--output={}", file.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(entries).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn labels() -> Labels {
    Labels {
        instance: "h".into(),
        service: ("cache-nginx".into(), "cache-docker".into()),
        host: ("host".into(), "larder".into()),
        service_units: vec!["u0.service".into()],
        stream: None,
        metadata: vec![("environment".into(), "production".into())],
    }
}

fn loki() -> (Arc<Mutex<Loki>>, Server) {
    let loki: Arc<Mutex<Loki>> = Arc::default();
    let shared = Arc::clone(&loki);
    let server = Server::start(move |request| {
        assert_eq!(request.line, "POST /loki/api/v1/push HTTP/1.1");
        let now = SystemClock::new().now();
        let content = request.header("content-type").unwrap_or_default();
        let (status, text) = shared.lock().unwrap().push(content, &request.body, now);
        Reply::status(status, text)
    });
    (loki, server)
}

/// Ships a folder of journal files until there is nothing left.
fn ship(folder: &Path, keep: &Path, server: &Server, secret: Option<&[u8]>) -> Arc<LogCounters> {
    let counters = Arc::new(LogCounters::default());
    let settings = ClientSettings::new(
        &server.url("/"),
        "/loki/api/v1/push",
        Credentials::None,
        None,
        None,
        false,
    );
    let mut settings = settings.unwrap();
    settings.headers = shipper::http::headers(false);
    let place = Place::Folder(folder.to_owned());
    let mut pipeline = Pipeline::new(
        Settings::new(labels()),
        move || Files::open(place.clone()),
        Client::new(settings).unwrap(),
        SystemClock::new(),
        KeepFile(keep.to_owned()),
        Arc::clone(&counters),
    );
    if let Some(secret) = secret {
        let key = Key::new().unwrap();
        pipeline
            .redactor()
            .lock()
            .unwrap()
            .set(&key, &key.of(secret));
    }
    loop {
        match pipeline.step(true) {
            Step::Progress => {}
            Step::Idle(_) => break,
            Step::Wait(_) => panic!("{}", counters.problem()),
        }
    }
    pipeline.save();
    counters
}

#[test]
fn files_are_read_as_they_were_written() {
    let Some(remote) = journal_remote() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    write(
        &remote,
        &folder.path().join("a.journal"),
        &export(0..100, |at| format!("line {at}").into_bytes()),
    );
    let mut files = Files::open(Place::Folder(folder.path().into())).unwrap();
    files.seek_head().unwrap();
    let mut entry = Entry::default();
    let mut count = 0;
    let mut last = None;
    while files.next().unwrap() {
        files.read(&mut entry).unwrap();
        assert_eq!(
            entry.field("MESSAGE").unwrap(),
            format!("line {count}").as_bytes()
        );
        assert_eq!(entry.field("_CAP_EFFECTIVE"), None);
        assert_eq!(entry.stamp.boot.to_string(), BOOT);
        let cursor = files.cursor().unwrap();
        assert!(files.is_at(&cursor).unwrap());
        if let Some(last) = last {
            assert_eq!(entry.stamp.seqnum, last + 1);
        }
        last = Some(entry.stamp.seqnum);
        count += 1;
    }
    assert_eq!(count, 100);
    assert!(files.clock_of_boot(entry.stamp.boot).unwrap().is_some());
    assert!(files.seek_cursor("nonsense").is_err());
    assert!(Files::open(Place::Folder(folder.path().join("missing"))).is_err());
}

#[test]
fn everything_arrives_once_over_restarts_and_rotation() {
    let Some(remote) = journal_remote() else {
        return;
    };
    let (loki, server) = loki();
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("cursor.json");
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let line = |at: u64| format!("line {at}").into_bytes();
    let whole = export(0..300, line);
    let begin = |at: u64| {
        let mark = format!("MESSAGE\n\x07\0\0\0\0\0\0\0line {at}");
        let mark = if at >= 100 {
            mark.replace('\x07', "\x08")
        } else {
            mark
        };
        memchr::memmem::find(&whole, mark.as_bytes()).unwrap()
    };
    let cut = memchr::memmem::rfind(&whole[..begin(150)], b"__REALTIME").unwrap();
    write(&remote, &journal.join("a.journal"), &whole[..cut]);
    assert_eq!(ship(&journal, &keep, &server, None).shipped.get(), 150);
    assert_eq!(ship(&journal, &keep, &server, None).shipped.get(), 0);
    // Rotation: the old file has another name, the new one goes on.
    std::fs::rename(journal.join("a.journal"), journal.join("a@old.journal")).unwrap();
    write(&remote, &journal.join("a.journal"), &whole[cut..]);
    let counters = ship(&journal, &keep, &server, None);
    assert_eq!(counters.shipped.get(), 150);
    let loki = loki.lock().unwrap();
    assert_eq!((loki.refused, loki.duplicates), (0, 0));
    let mut numbers: Vec<u64> = loki
        .lines()
        .map(|line| line.text.strip_prefix("line ").unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    assert!(loki.streams.contains_key(
        r#"{app="cache-docker", instance="h", job="cache-nginx", unit="u0.service"}"#
    ));
    let line = loki.lines().next().unwrap();
    assert_eq!(line.metadata("level"), Some("info"));
    assert_eq!(line.metadata("environment"), Some("production"));
}

#[test]
fn monsters_binary_lines_and_secrets() {
    let Some(remote) = journal_remote() else {
        return;
    };
    let (loki, server) = loki();
    let folder = tempfile::tempdir().unwrap();
    let secret = b"hunter2-hunter2-hunter2";
    let message = |at: u64| match at {
        0 => vec![b'x'; 1 << 20],
        1 => b"\xff\xfe\0binary".to_vec(),
        2 => vec![],
        // Across the border of lines of one process (3 and 6), and of batches.
        3 => b"password: hunter2-hun".to_vec(),
        6 => b"ter2-hunter2 was it".to_vec(),
        7 => [b"whole: ", &secret[..]].concat(),
        _ => b"harmless".to_vec(),
    };
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    write(&remote, &journal.join("a.journal"), &export(0..10, message));
    let counters = ship(&journal, &folder.path().join("c"), &server, Some(secret));
    assert_eq!((counters.shipped.get(), counters.dropped.total()), (10, 0));
    let loki = loki.lock().unwrap();
    let all: String = loki
        .lines()
        .map(|line| line.text.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        !all.contains("hunter2-") && !all.contains("ter2-hunter2"),
        "{}",
        &all[..200]
    );
    assert!(all.contains("whole: [redacted]") && all.contains("password: [redacted]"));
    assert!(all.contains("\u{fffd}\u{fffd}\0binary"));
    assert!(
        loki.lines()
            .any(|line| line.text.len() > 200_000 && line.metadata("truncated_bytes").is_some())
    );
}
