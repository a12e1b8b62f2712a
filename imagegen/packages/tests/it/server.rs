//! A small, ill-behaved HTTP/1.1 server.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with one answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The connection breaks after so many bytes of the body.
    Drop(usize),
    /// The connection breaks before any answer.
    Hangup,
    /// Only a status, without a body.
    Status(u16),
    /// Nothing more after so many bytes of the body, for longer than the client waits.
    Stall(usize),
    /// The whole file although a range was asked for.
    IgnoreRange,
    /// Both: always from the beginning, and the connection breaks after so many bytes.
    Cut(usize),
    /// Only so many bytes, announced as if that were all.
    Short(usize),
    /// No Content-Length; the connection ends after so many bytes.
    Unannounced(usize),
    /// Other bytes of the same length.
    Wrong,
    /// More bytes than there should be.
    Long,
    /// A redirect.
    Redirect(String),
    /// Bytes come in small pieces with pauses.
    Slow,
}

/// A request that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request target as sent.
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
}

#[derive(Default)]
struct File {
    body: Vec<u8>,
    /// For the next answers, in order; then the file is served well.
    faults: VecDeque<Fault>,
    /// For all answers after those.
    always: Option<Fault>,
}

#[derive(Default)]
struct State {
    files: Mutex<HashMap<String, File>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// Listens on loopback until the process ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                state.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        let file = File {
            body: body.into(),
            ..File::default()
        };
        self.state
            .files
            .lock()
            .expect("no panic")
            .insert(path.to_owned(), file);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.files.lock().expect("no panic").remove(path);
    }

    /// Faults of the next answers for a path.
    pub(crate) fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut files = self.state.files.lock().expect("no panic");
        files
            .entry(path.to_owned())
            .or_default()
            .faults
            .extend(faults);
    }

    /// A fault of every answer for a path.
    pub(crate) fn always(&self, path: &str, fault: Fault) {
        let mut files = self.state.files.lock().expect("no panic");
        files.entry(path.to_owned()).or_default().always = Some(fault);
    }

    /// Requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no panic").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// `Range` headers of the requests for a path, in order.
    pub(crate) fn ranges(&self, path: &str) -> Vec<Option<String>> {
        let of_path = |seen: &&Seen| decode(&seen.target) == path;
        self.seen()
            .iter()
            .filter(of_path)
            .map(|s| s.headers.get("range").cloned())
            .collect()
    }
}

/// A port that nobody listens on.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("loopback")
        .port()
}

fn decode(target: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = target.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex: Vec<u8> = bytes.by_ref().take(2).collect();
            let hex = String::from_utf8(hex).expect("hex");
            out.push(u8::from_str_radix(&hex, 16).expect("hex"));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).expect("UTF-8")
}

fn serve(stream: TcpStream, state: &State) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut writer = stream;
    while let Some(seen) = read_request(&mut reader) {
        let target = seen.target.clone();
        let range = seen.headers.get("range").and_then(|r| {
            r.strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        state.seen.lock().expect("no panic").push(seen);
        // A proxy gets absolute URLs; serve them by their path.
        let path = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
            None => target,
        };
        let found = {
            let mut files = state.files.lock().expect("no panic");
            files.get_mut(&decode(&path)).map(|file| {
                (
                    file.body.clone(),
                    file.faults.pop_front().or_else(|| file.always.clone()),
                )
            })
        };
        let answered = match found {
            None => writer
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n")
                .map(|()| true),
            Some((body, fault)) => answer(&mut writer, body, fault, range),
        };
        if !matches!(answered, Ok(true)) {
            return;
        }
    }
}

/// `Ok(true)` if the connection goes on.
fn answer(
    writer: &mut TcpStream,
    mut body: Vec<u8>,
    fault: Option<Fault>,
    range: Option<usize>,
) -> std::io::Result<bool> {
    let whole = body.len();
    let range = range.filter(|_| !matches!(fault, Some(Fault::IgnoreRange | Fault::Cut(_))));
    let head = match range {
        Some(from) if from >= whole => {
            writer.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        Some(from) => {
            body.drain(..from);
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{whole}\r\n",
                whole - 1
            )
        }
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let (mut announced, mut sent) = (Some(body.len()), body.len());
    match fault {
        None | Some(Fault::IgnoreRange | Fault::Slow) => {}
        Some(Fault::Hangup) => return Ok(false),
        Some(Fault::Status(status)) => {
            write!(
                writer,
                "HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n"
            )?;
            return Ok(true);
        }
        Some(Fault::Redirect(ref to)) => {
            write!(
                writer,
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
            )?;
            return Ok(true);
        }
        Some(Fault::Drop(at) | Fault::Cut(at) | Fault::Stall(at)) => sent = sent.min(at),
        Some(Fault::Short(at)) => (announced, sent) = (Some(at), at),
        Some(Fault::Unannounced(at)) => (announced, sent) = (None, sent.min(at)),
        Some(Fault::Wrong) => body.iter_mut().for_each(|b| *b ^= 1),
        Some(Fault::Long) => {
            body.extend_from_slice(b"and more");
            (announced, sent) = (Some(body.len()), body.len());
        }
    }
    writer.write_all(head.as_bytes())?;
    match announced {
        Some(length) => write!(writer, "Content-Length: {length}\r\n\r\n")?,
        None => writer.write_all(b"Connection: close\r\n\r\n")?,
    }
    if fault == Some(Fault::Slow) {
        for piece in body.chunks(body.len() / 4 + 1) {
            writer.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        return Ok(true);
    }
    writer.write_all(&body[..sent])?;
    match fault {
        Some(Fault::Stall(_)) => {
            std::thread::sleep(Duration::from_secs(3));
            Ok(false)
        }
        Some(Fault::Drop(_) | Fault::Cut(_) | Fault::Unannounced(_)) => Ok(false),
        _ => Ok(true),
    }
}

fn read_request(reader: &mut impl std::io::BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned())
            }
            None => return Some(Seen { target, headers }),
        };
    }
}
