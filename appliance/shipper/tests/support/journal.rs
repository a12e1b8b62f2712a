//! Journal files, written by systemd-journal-remote, and pipelines that ship them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use receiver_double::{Loki, Reply, Server};
use shipper::clock::{Clock, SystemClock};
use shipper::counters::LogCounters;
use shipper::http::{Client, ClientSettings, Credentials};
use shipper::journal::{Error, Files, Id128, Place};
use shipper::logs::{KeepFile, Labels, Pipeline, Settings};

/// The boot of all entries.
pub(crate) const BOOT: &str = "6c7c6013a26343b29e964691ff25d04c";

/// systemd-journal-remote, which writes journal files without a journald.
pub(crate) fn journal_remote() -> Option<PathBuf> {
    super::program(
        "systemd-journal-remote",
        &["/lib/systemd/systemd-journal-remote"],
    )
}

/// Entries in the export format (systemd.dev, "Journal Export Formats").
pub(crate) fn export(range: std::ops::Range<u64>, message: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let now = (SystemClock::new().now() / 1000) as u64 - 3_600_000_000;
    export_from(now, range, message)
}

/// Entries a µs apart from a time in µs on.
pub(crate) fn export_from(
    start: u64,
    range: std::ops::Range<u64>,
    message: impl Fn(u64) -> Vec<u8>,
) -> Vec<u8> {
    let mut out = Vec::new();
    for at in range {
        let _ = write!(
            out,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={BOOT}\nPRIORITY=6\n\
             _SYSTEMD_UNIT=u{}.service\n_PID={}\n_CAP_EFFECTIVE=0\n",
            start + at,
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

/// Writes entries into a journal file.
pub(crate) fn write(remote: &Path, file: &Path, entries: &[u8]) {
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

pub(crate) fn labels() -> Labels {
    Labels {
        instance: "h".into(),
        service: ("cache-nginx".into(), "cache-docker".into()),
        host: ("host".into(), "larder".into()),
        service_units: vec!["u0.service".into()],
        stream: None,
        metadata: vec![("environment".into(), "production".into())],
    }
}

/// Loki behind HTTP.
pub(crate) fn loki() -> (Arc<Mutex<Loki>>, Server) {
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

/// A clock that goes when it is told to.
#[derive(Clone, Debug)]
pub(crate) struct TestClock(Arc<Mutex<Duration>>, i64);

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Arc::default(), SystemClock::new().now())
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    /// Time since it was made.
    pub(crate) fn passed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.1 + self.passed().as_nanos() as i64
    }

    fn monotonic(&self) -> Duration {
        self.passed()
    }

    fn synchronized(&self) -> bool {
        true
    }

    fn boot(&self) -> Id128 {
        Id128::parse(BOOT).unwrap()
    }
}

/// A pipeline from the files of a folder.
pub(crate) type FilesPipeline =
    Pipeline<Files, Box<dyn FnMut() -> Result<Files, Error>>, Client, TestClock, KeepFile>;

/// A client that pushes logs to the server.
pub(crate) fn pusher(server: &Server) -> Client {
    let mut settings = ClientSettings::new(
        &server.url("/"),
        "/loki/api/v1/push",
        Credentials::None,
        None,
        None,
        false,
    )
    .unwrap();
    settings.headers = shipper::http::headers(false);
    Client::new(settings).unwrap()
}

/// Ships a folder to a server; `batch_bytes` is the size of a batch.
pub(crate) fn pipeline(
    folder: &Path,
    keep: &Path,
    server: &Server,
    clock: &TestClock,
    batch_bytes: usize,
    counters: &Arc<LogCounters>,
) -> FilesPipeline {
    let place = Place::Folder(folder.to_owned());
    let open = Box::new(move || Files::open(place.clone()));
    pipeline_of(open, keep, server, clock, batch_bytes, counters)
}

/// Ships what `open` opens.
pub(crate) fn pipeline_of(
    open: Box<dyn FnMut() -> Result<Files, Error>>,
    keep: &Path,
    server: &Server,
    clock: &TestClock,
    batch_bytes: usize,
    counters: &Arc<LogCounters>,
) -> FilesPipeline {
    let settings = Settings {
        batch_bytes,
        ..Settings::new(labels())
    };
    let keep = KeepFile(keep.to_owned());
    let counters = Arc::clone(counters);
    Pipeline::new(
        settings,
        open,
        pusher(server),
        clock.clone(),
        keep,
        counters,
    )
}
