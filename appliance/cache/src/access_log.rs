//! One structured record a request, in a journal of its own.
//!
//! Records go through a bounded queue to one thread, which looks into it some times a second (to wake it
//! for each record would cost the request more than all the rest of it) and writes them to the socket of a journal
//! namespace (systemd-journald.service(8)) by the journal's native protocol: fields of a datagram,
//! each `NAME=value` and a line's end, or for a value with line ends the name, a line's end, its
//! length in 8 bytes (little-endian), the value, a line's end. Nobody ever waits for the journal: what
//! does not fit into the queue, or the journal does not take, is counted and gone.
//!
//! Successes and misses are most of all there is: of those a share is written, of the rest all.
//! What a client sent is a value, never a name of a field or a label.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::auth::Handle;
use crate::metrics::Text;

/// Records that wait for the thread: at its pace more than 100,000 a second get through.
const QUEUE: usize = 8192;
/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for the journal with one record.
const PATIENCE: Duration = Duration::from_millis(500);
/// A request that takes longer than this is written, whatever its status.
const SLOW: Duration = Duration::from_secs(30);

/// Where and how much.
#[derive(Clone, Debug)]
pub struct AccessLogSettings {
    /// Socket of the journal, such as `/run/systemd/journal.larder-access/socket`.
    pub socket: PathBuf,
    /// Share of the successes and misses that is written, 0 to 1.
    pub share: f64,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Of a known list.
    pub(crate) method: &'static str,
    /// Of a known list.
    pub(crate) group: &'static str,
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    /// Of the response's body.
    pub(crate) bytes: u64,
    pub(crate) account: Option<Handle>,
    /// The client's, if it gave one.
    pub(crate) id: String,
}

/// What waits for the thread.
#[derive(Debug, Default)]
struct Queue {
    records: Mutex<Vec<Record>>,
    /// Nothing comes any more.
    closed: AtomicBool,
}

impl Queue {
    /// Puts a record in; `false`: it is full.
    fn put(&self, record: Record) -> bool {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = records.len() < QUEUE;
        if fits {
            records.push(record);
        }
        fits
    }

    /// Takes all that is in it; `into` is empty, and its memory serves again.
    fn take(&self, into: &mut Vec<Record>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *records, into);
    }
}

/// The way to the journal.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    queue: Option<Arc<Queue>>,
    /// Of 2^32: the share of the successes.
    share: u64,
    number: AtomicU64,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    /// The queue was full.
    crowded: AtomicU64,
    /// The journal did not take it.
    refused: AtomicU64,
}

impl AccessLog {
    /// Starts the thread, which ends with the log. A journal that is not there yet may come.
    pub(crate) fn start(settings: &AccessLogSettings) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let (queue, counts) = (Arc::<Queue>::default(), Arc::<Counts>::default());
        let (path, counted) = (settings.socket.clone(), Arc::clone(&counts));
        let records = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&records, &socket, &path, &counted))?;
        Ok(Self {
            queue: Some(queue),
            share: (settings.share.clamp(0.0, 1.0) * 4_294_967_296.0) as u64,
            number: AtomicU64::new(0),
            counts,
        })
    }

    /// Writes a record, or leaves it out. Never waits; `id` is made only for what is written.
    pub(crate) fn record(&self, status: u16, duration: Duration, make: impl FnOnce() -> Record) {
        let Some(queue) = &self.queue else { return };
        let usual = matches!(status, 200..300 | 404) && duration < SLOW;
        if usual && !self.is_drawn() {
            return;
        }
        if !queue.put(make()) {
            self.counts.crowded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the next one of the usual requests is written. Spread evenly by a multiplication
    /// with the golden ratio: no client can choose to be left out, and none pays for randomness.
    fn is_drawn(&self) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread < self.share
    }

    /// Writes metrics.
    pub(crate) fn write(&self, text: &mut Text) {
        text.family(
            "larder_cache_access_records_total",
            "counter",
            "Records of requests, by what became of them.",
        );
        for (outcome, counter) in [
            ("written", &self.counts.written),
            ("queue_full", &self.counts.crowded),
            ("journal", &self.counts.refused),
        ] {
            let count = counter.load(Ordering::Relaxed);
            text.line("", &[("outcome", outcome)], count);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.closed.store(true, Ordering::Release);
        }
    }
}

fn write(queue: &Queue, socket: &UnixDatagram, path: &Path, counts: &Counts) {
    let mut bytes = Vec::with_capacity(1024);
    let mut records = Vec::new();
    let mut silent = false;
    loop {
        let closed = queue.closed.load(Ordering::Acquire);
        queue.take(&mut records);
        for record in records.drain(..) {
            bytes.clear();
            datagram(&record, &mut bytes);
            match socket.send_to(&bytes, path) {
                Ok(_) => {
                    silent = false;
                    counts.written.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    // Without the journal the service runs as well as with it.
                    if !silent && error.kind() != ErrorKind::WouldBlock {
                        silent = true;
                        log::warn!("no access records: {}: {error}", path.display());
                    }
                }
            }
        }
        if closed {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

/// Puts a record into the form of the native protocol.
fn datagram(record: &Record, to: &mut Vec<u8>) {
    let seconds = record.duration.as_secs_f64();
    let account = record.account.as_ref().map_or("-", Handle::as_str);
    let (method, group, status) = (record.method, record.group, record.status);
    let message = format!(
        "method={method} path_group={group} status={status} duration={seconds:.6} bytes={} \
         account={account:?} request_id={:?}",
        record.bytes, record.id
    );
    let priority = if status >= 500 { "4" } else { "6" };
    for (name, value) in [
        ("MESSAGE", message.as_str()),
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "larder-access"),
        ("LARDER_METHOD", method),
        ("LARDER_PATH_GROUP", group),
        ("LARDER_STATUS", &status.to_string()),
        ("LARDER_DURATION_SECONDS", &format!("{seconds:.6}")),
        ("LARDER_BYTES", &record.bytes.to_string()),
        ("LARDER_ACCOUNT", account),
        ("LARDER_REQUEST_ID", &record.id),
    ] {
        field(name, value, to);
    }
}

fn field(name: &str, value: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        to.push(b'\n');
        to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        to.push(b'=');
    }
    to.extend_from_slice(value.as_bytes());
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: u16, id: &str) -> Record {
        Record {
            method: "GET",
            group: "xcode",
            status,
            duration: Duration::from_micros(1500),
            bytes: 7,
            account: Handle::parse("acme").ok(),
            id: id.into(),
        }
    }

    fn journal() -> (tempfile::TempDir, UnixDatagram, AccessLogSettings) {
        let folder = tempfile::tempdir().unwrap();
        let settings = AccessLogSettings {
            socket: folder.path().join("socket"),
            share: 0.1,
        };
        let socket = UnixDatagram::bind(&settings.socket).unwrap();
        (folder, socket, settings)
    }

    /// A log whose records nobody writes.
    fn without_thread() -> (AccessLog, Arc<Queue>) {
        let queue = Arc::<Queue>::default();
        let mut log = AccessLog::default();
        log.queue = Some(Arc::clone(&queue));
        log.share = (0.1 * 4_294_967_296.0) as u64;
        (log, queue)
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_record_has_its_fields_whatever_the_client_sent() {
        let (_folder, socket, settings) = journal();
        let log = AccessLog::start(&settings).unwrap();
        let id = "x\nLARDER_STATUS=200\n";
        log.record(500, Duration::ZERO, || record(500, id));
        let text = receive(&socket);
        for line in [
            "PRIORITY=4\n",
            "LARDER_METHOD=GET\n",
            "LARDER_PATH_GROUP=xcode\n",
            "LARDER_STATUS=500\n",
            "LARDER_DURATION_SECONDS=0.001500\n",
            "LARDER_BYTES=7\n",
            "LARDER_ACCOUNT=acme\n",
        ] {
            assert!(text.contains(line), "{line} {text}");
        }
        let length = String::from_utf8((id.len() as u64).to_le_bytes().to_vec()).unwrap();
        let field = format!("LARDER_REQUEST_ID\n{length}{id}\n");
        assert!(text.ends_with(&field), "{text:?}");
        let message = text.lines().next().unwrap();
        assert!(
            message.starts_with("MESSAGE=method=GET path_group=xcode status=500 "),
            "{message}"
        );
        assert!(
            message.ends_with(r#"request_id="x\nLARDER_STATUS=200\n""#),
            "{message}"
        );
    }

    #[test]
    fn a_tenth_of_successes_and_misses_and_all_of_the_rest_are_written() {
        let (log, queue) = without_thread();
        let count = |status, duration| {
            for _ in 0..1000 {
                log.record(status, duration, || record(status, "a"));
            }
            let mut records = Vec::new();
            queue.take(&mut records);
            records.len()
        };
        for status in [200, 204, 206, 404] {
            let written = count(status, Duration::ZERO);
            assert!((90..=110).contains(&written), "{status}: {written}");
        }
        for status in [301, 401, 403, 429, 499, 500, 503] {
            assert_eq!(count(status, Duration::ZERO), 1000, "{status}");
        }
        assert_eq!(count(200, SLOW), 1000);
    }

    #[test]
    fn nobody_waits_and_what_is_lost_is_counted() {
        let (log, _queue) = without_thread();
        for _ in 0..QUEUE + 3 {
            log.record(500, Duration::ZERO, || record(500, "a"));
        }
        assert_eq!(log.counts.crowded.load(Ordering::Relaxed), 3);
        // No journal at all.
        let log = AccessLog::start(&AccessLogSettings {
            socket: "/proc/none".into(),
            share: 1.0,
        });
        let log = log.unwrap();
        log.record(200, Duration::ZERO, || record(200, "a"));
        let began = std::time::Instant::now();
        while log.counts.refused.load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        let mut text = Text::default();
        log.write(&mut text);
        let text = text.into_text();
        assert!(
            text.contains("larder_cache_access_records_total{outcome=\"journal\"} 1"),
            "{text}"
        );
        AccessLog::default().record(500, Duration::ZERO, || unreachable!());
    }
}
