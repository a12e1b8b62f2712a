//! A load generator that costs less than what it loads: one thread, epoll, TLS in place.
//!
//! Each connection has `depth` requests under way and sends the next ones when answers came whole. One
//! answer in a thousand is checked by SHA-256, of all others the length and the status.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use crate::data::{self, Object};
use crate::http1::Http1;
use crate::http2::Http2;

/// One in so many answers is checked byte by byte.
const CHECKED: u64 = 1000;
/// Bytes read at a time.
const READ: usize = 512 * 1024;

/// What is asked.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// `None`: no TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) http2: bool,
    /// Over HTTP/2: whether windows are opened; else streams stall after the first 64 KiB.
    pub(crate) reads: bool,
    pub(crate) connections: usize,
    pub(crate) depth: usize,
    /// What follows one another, for ever.
    pub(crate) requests: Box<dyn FnMut() -> Request + Send>,
}

/// One request and what must come back.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// Headers beside the usual ones.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Arc<Vec<u8>>>,
    /// 0: any.
    pub(crate) status: u16,
    /// The object that comes back, if one does.
    pub(crate) object: Option<Object>,
}

/// What came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) answers: u64,
    pub(crate) bytes: u64,
    pub(crate) checked: u64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
}

impl std::ops::Sub for Count {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            answers: self.answers - before.answers,
            bytes: self.bytes - before.bytes,
            checked: self.checked - before.checked,
            handshakes: self.handshakes - before.handshakes,
            resumed: self.resumed - before.resumed,
        }
    }
}

/// What connections share.
pub(crate) struct Shared {
    /// Nothing more is asked.
    paused: bool,
    requests: Box<dyn FnMut() -> Request + Send>,
    pub(crate) count: Count,
    asked: u64,
    digests: HashMap<Object, [u8; 32]>,
}

/// An answer in the making.
pub(crate) struct Pending {
    status: u16,
    object: Option<Object>,
    length: u64,
    hash: Option<Box<ring::digest::Context>>,
}

impl Shared {
    pub(crate) fn next(&mut self) -> (Request, Pending) {
        let request = (self.requests)();
        self.asked += 1;
        let checked = request.object.is_some() && self.asked % CHECKED == 1;
        let pending = Pending {
            status: request.status,
            object: request.object,
            length: 0,
            hash: checked.then(|| Box::new(ring::digest::Context::new(&ring::digest::SHA256))),
        };
        (request, pending)
    }

    /// Bytes of the body of an answer came.
    pub(crate) fn took(&mut self, pending: &mut Pending, bytes: &[u8]) {
        pending.length += bytes.len() as u64;
        self.count.bytes += bytes.len() as u64;
        if let Some(hash) = &mut pending.hash {
            hash.update(bytes);
        }
    }

    /// An answer came whole.
    pub(crate) fn ended(&mut self, pending: Pending, status: u16) {
        assert!(
            pending.status == 0 || status == pending.status,
            "status {status} instead of {}",
            pending.status
        );
        if let Some(object) = pending.object {
            assert_eq!(pending.length, object.length as u64, "length of a body");
            if let Some(hash) = pending.hash {
                let known = self.digests.entry(object);
                let known = known.or_insert_with(|| data::digest(&data::bytes(object)));
                assert_eq!(hash.finish().as_ref(), known, "bytes of a body");
                self.count.checked += 1;
            }
        }
        self.count.answers += 1;
    }
}

pub(crate) enum Protocol {
    One(Http1),
    Two(Box<Http2>),
}

impl Protocol {
    /// Takes bytes that came; what is to be sent is appended to `out`.
    fn take(&mut self, bytes: &[u8], shared: &mut Shared, out: &mut Vec<u8>) {
        match self {
            Self::One(http) => http.take(bytes, shared),
            Self::Two(http) => http.take(bytes, shared, out),
        }
    }

    /// Asks for as much as may be under way.
    fn ask(&mut self, shared: &mut Shared, out: &mut Vec<u8>) {
        match self {
            Self::One(http) => http.ask(shared, out),
            Self::Two(http) => http.ask(shared, out),
        }
    }

    /// Whether the connection is over: no answer is awaited, and no request may follow.
    fn is_over(&self) -> bool {
        match self {
            Self::One(http) => http.is_over(),
            Self::Two(http) => http.is_over(),
        }
    }
}

struct Connection {
    socket: TcpStream,
    tls: Option<UnbufferedClientConnection>,
    ready: bool,
    protocol: Protocol,
    /// Came, not looked at yet.
    incoming: Vec<u8>,
    filled: usize,
    /// To be encrypted.
    clear: Vec<u8>,
    /// To be written.
    outgoing: Vec<u8>,
    written: usize,
    wants_write: bool,
}

/// The generator with its connections.
pub(crate) struct Generator {
    address: SocketAddr,
    config: Option<Arc<ClientConfig>>,
    http2: bool,
    reads: bool,
    depth: usize,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    pub(crate) shared: Shared,
}

impl Generator {
    pub(crate) fn new(load: Load) -> io::Result<Self> {
        let mut generator = Self {
            address: load.address,
            config: load.tls,
            http2: load.http2,
            reads: load.reads,
            depth: load.depth,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            shared: Shared {
                paused: false,
                requests: load.requests,
                count: Count::default(),
                asked: 0,
                digests: HashMap::new(),
            },
        };
        for at in 0..load.connections {
            let connection = generator.connect(at)?;
            generator.connections.push(connection);
        }
        Ok(generator)
    }

    fn connect(&mut self, at: usize) -> io::Result<Connection> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let tls = self.config.as_ref().map(|config| {
            let name = ServerName::try_from("localhost").expect("a name");
            UnbufferedClientConnection::new(Arc::clone(config), name).expect("a client of TLS")
        });
        let flags = epoll::EventFlags::IN;
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(at as u64),
            flags,
        )?;
        let mut connection = Connection {
            socket,
            ready: tls.is_none(),
            tls,
            protocol: match self.http2 {
                true => Protocol::Two(Box::new(Http2::new(self.depth, self.reads))),
                false => Protocol::One(Http1::default()),
            },
            incoming: vec![0; READ],
            filled: 0,
            clear: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            wants_write: false,
        };
        if connection.ready {
            connection
                .protocol
                .ask(&mut self.shared, &mut connection.clear);
        }
        connection.progress(&mut self.shared);
        connection.flush()?;
        self.watch(at, &mut connection)?;
        Ok(connection)
    }

    fn watch(&self, at: usize, connection: &mut Connection) -> io::Result<()> {
        let wants = connection.written < connection.outgoing.len();
        if wants != connection.wants_write {
            connection.wants_write = wants;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, wants);
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, &connection.socket, data, flags)?;
        }
        Ok(())
    }

    /// Asks for nothing more; connections stay.
    pub(crate) fn pause(&mut self) {
        self.shared.paused = true;
    }

    /// Runs for so long; what came in that time.
    pub(crate) fn run(&mut self, time: Duration) -> io::Result<Count> {
        self.run_until(|_, began| began.elapsed() >= time)
    }

    /// Runs until `done` says so.
    pub(crate) fn run_until(
        &mut self,
        mut done: impl FnMut(&Count, Instant) -> bool,
    ) -> io::Result<Count> {
        let before = self.shared.count;
        let began = Instant::now();
        let mut events = Vec::with_capacity(256);
        let tick = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut last = Instant::now();
        while !done(&self.shared.count, began) {
            events.clear();
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&tick),
            )?;
            assert!(
                last.elapsed() < Duration::from_secs(20),
                "the server says nothing any more"
            );
            for event in &events {
                last = Instant::now();
                let at = event.data.u64() as usize;
                let connection = &mut self.connections[at];
                let open = connection.turn(&mut self.shared)?;
                if open && !connection.protocol.is_over() {
                    let mut connection = self.connections.swap_remove(at);
                    // Back to its place.
                    self.watch(at, &mut connection)?;
                    self.connections.push(connection);
                    let end = self.connections.len() - 1;
                    self.connections.swap(at, end);
                } else {
                    let mut fresh = self.connect(at)?;
                    std::mem::swap(&mut self.connections[at], &mut fresh);
                }
            }
        }
        Ok(self.shared.count - before)
    }
}

impl Connection {
    /// Reads, answers, writes. `false`: the server has closed.
    fn turn(&mut self, shared: &mut Shared) -> io::Result<bool> {
        loop {
            if self.filled == self.incoming.len() {
                self.incoming.resize(2 * self.filled, 0);
            }
            let room = self.incoming.len() - self.filled;
            match self.socket.read(&mut self.incoming[self.filled..]) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.filled += read;
                    self.progress(shared);
                    // Less than there was room for: that was all.
                    if read < room {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.ready && !shared.paused {
            self.protocol.ask(shared, &mut self.clear);
            self.progress(shared);
        }
        self.flush()?;
        Ok(true)
    }

    /// Looks at what came, and encrypts what is to go.
    fn progress(&mut self, shared: &mut Shared) {
        let Some(tls) = &mut self.tls else {
            let came = std::mem::take(&mut self.filled);
            let Self {
                protocol,
                incoming,
                clear,
                ..
            } = self;
            protocol.take(&incoming[..came], shared, clear);
            self.outgoing.append(&mut self.clear);
            return;
        };
        let mut at = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                tls.process_tls_records(&mut self.incoming[at..self.filled]);
            let mut discard = discard;
            let mut go_on = true;
            match state.expect("TLS") {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.expect("a record");
                        discard += record.discard;
                        self.protocol.take(record.payload, shared, &mut self.clear);
                    }
                }
                ConnectionState::EncodeTlsData(mut state) => {
                    let mut needed = 4096;
                    loop {
                        let from = self.outgoing.len();
                        self.outgoing.resize(from + needed, 0);
                        match state.encode(&mut self.outgoing[from..]) {
                            Ok(written) => {
                                self.outgoing.truncate(from + written);
                                break;
                            }
                            Err(EncodeError::InsufficientSize(size)) => {
                                self.outgoing.truncate(from);
                                needed = size.required_size;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                // Sent with what follows.
                ConnectionState::TransmitTlsData(state) => state.done(),
                ConnectionState::WriteTraffic(mut state) => {
                    if !self.ready {
                        self.ready = true;
                        shared.count.handshakes += 1;
                        self.protocol.ask(shared, &mut self.clear);
                    }
                    let mut rest = &self.clear[..];
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(rest.len().min(16 * 1024));
                        let from = self.outgoing.len();
                        self.outgoing.resize(from + now.len() + 64, 0);
                        match state.encrypt(now, &mut self.outgoing[from..]) {
                            Ok(written) => self.outgoing.truncate(from + written),
                            Err(EncryptError::InsufficientSize(size)) => {
                                panic!("a record of {} bytes", size.required_size)
                            }
                            Err(error) => panic!("{error}"),
                        }
                        rest = later;
                    }
                    self.clear.clear();
                    go_on = false;
                }
                ConnectionState::BlockedHandshake
                | ConnectionState::PeerClosed
                | ConnectionState::Closed => go_on = false,
                _ => panic!("a state of TLS that was not asked for"),
            }
            at += discard;
            if !go_on && discard == 0 {
                break;
            }
        }
        self.incoming.copy_within(at..self.filled, 0);
        self.filled -= at;
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.socket.write(&self.outgoing[self.written..]) {
                Ok(wrote) => self.written += wrote,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The server has closed; reading tells.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                    ) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(())
    }
}
