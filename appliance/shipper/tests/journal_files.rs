//! Against journal files that systemd-journal-remote writes, through libsystemd.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use receiver_double::Server;
use secrets::fingerprint::Key;
use shipper::clock::SystemClock;
use shipper::counters::LogCounters;
use shipper::journal::{Entry, Files, Journal, Place};
use shipper::logs::{KeepFile, Pipeline, Settings, Step};
use support::journal::{
    BOOT, TestClock, export, journal_remote, labels, loki, pipeline, pusher, write,
};

/// Ships a folder of journal files until there is nothing left.
fn ship(folder: &Path, keep: &Path, server: &Server, secret: Option<&[u8]>) -> Arc<LogCounters> {
    let counters = Arc::new(LogCounters::default());
    let place = Place::Folder(folder.to_owned());
    let mut pipeline = Pipeline::new(
        Settings::new(labels()),
        move || Files::open(place.clone()),
        pusher(server),
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

#[test]
fn a_secret_in_pieces_never_leaves_whatever_borders_it_crosses() {
    let Some(remote) = journal_remote() else {
        return;
    };
    let secret = b"hunter2-hunter2-hunter2";
    let key = Key::new().unwrap();
    let known = key.of(secret);
    // Each line is a batch of its own, and after each the shipper is killed and started again.
    for cut in 0..=secret.len() {
        let (loki, server) = loki();
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        std::fs::create_dir(&journal).unwrap();
        // Lines 0, 3, 6 and 9 are of one process.
        let message = |at: u64| match at {
            3 => [b"before ", &secret[..cut]].concat(),
            6 => [&secret[cut..], b" behind"].concat(),
            _ => format!("harmless {at}").into_bytes(),
        };
        write(&remote, &journal.join("a.journal"), &export(0..10, message));
        let keep = folder.path().join("cursor");
        let clock = TestClock::new();
        let counters = Arc::default();
        loop {
            let mut shipper = pipeline(&journal, &keep, &server, &clock, 1, &counters);
            shipper.redactor().lock().unwrap().set(&key, &known);
            if matches!(shipper.step(true), Step::Idle(_)) {
                break;
            }
            shipper.save();
        }
        let loki = loki.lock().unwrap();
        let texts: Vec<_> = loki.lines().map(|line| line.text.clone()).collect();
        assert_eq!(texts.len(), 10, "cut at {cut}: {texts:?}");
        let of_process = |text: &&String| !text.starts_with("harmless");
        let joined: String = texts.iter().filter(of_process).cloned().collect();
        for window in secret.windows(8) {
            let window = std::str::from_utf8(window).unwrap();
            assert!(!joined.contains(window), "cut at {cut}: {joined}");
        }
    }
}
