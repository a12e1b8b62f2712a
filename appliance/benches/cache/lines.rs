//! The lines of the table: what is asked, how, and what the project promises.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::data::{self, Object};
use crate::generator::{Load, Request};
use crate::servers::Server;

/// Objects of the lines that must not fit into any cache of a server's own.
pub(crate) const MANY: u64 = 100_000;
/// Bodies that uploads choose from; keys are new each time.
const BODIES: u64 = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// One object.
    Hot(usize),
    /// 100,000 objects of this length, evenly.
    Even(usize),
    /// The same by Zipf's law.
    Zipf(usize),
    /// What there is not.
    Miss,
    /// nginx asks another process first.
    Asked(usize),
    /// New objects.
    Put(usize),
    /// A connection for each request (for what there is not), sessions resumed or not.
    Handshake(bool),
}

/// A line of the table.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) http2: bool,
    pub(crate) tls: bool,
    pub(crate) what: What,
    /// Ratio to the newest nginx: that must be, and that is the goal.
    pub(crate) aims: Option<(f64, f64)>,
}

const fn line(name: &'static str, http2: bool, what: What, must: f64, goal: f64) -> Line {
    Line {
        name,
        http2,
        tls: true,
        what,
        aims: Some((must, goal)),
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// All of them.
pub(crate) const LINES: [Line; 20] = [
    line("h2 4 KiB hot", true, What::Hot(4 * KIB), 1.0, 1.25),
    line("h2 4 KiB 100k", true, What::Even(4 * KIB), 1.1, 1.5),
    Line {
        name: "h2 4 KiB zipf",
        http2: true,
        tls: true,
        what: What::Zipf(4 * KIB),
        aims: None,
    },
    line("h1 4 KiB hot", false, What::Hot(4 * KIB), 1.0, 1.15),
    line("h1 4 KiB 100k", false, What::Even(4 * KIB), 1.0, 1.15),
    line("h2 64 KiB", true, What::Hot(64 * KIB), 1.0, 1.15),
    line("h1 64 KiB", false, What::Hot(64 * KIB), 1.1, 1.25),
    line("h2 1 MiB", true, What::Hot(MIB), 1.0, 1.2),
    line("h1 1 MiB", false, What::Hot(MIB), 1.0, 1.15),
    line("h2 100 MiB", true, What::Hot(100 * MIB), 1.0, 1.25),
    line("h1 100 MiB", false, What::Hot(100 * MIB), 0.9, 1.1),
    line("h2 miss", true, What::Miss, 1.5, 1.8),
    line("h1 miss", false, What::Miss, 1.2, 1.3),
    line(
        "h2 4 KiB auth_request",
        true,
        What::Asked(4 * KIB),
        2.5,
        4.0,
    ),
    line(
        "h1 4 KiB auth_request",
        false,
        What::Asked(4 * KIB),
        2.5,
        4.0,
    ),
    line("h1 upload 64 KiB", false, What::Put(64 * KIB), 0.8, 1.0),
    Line {
        name: "full handshake",
        http2: false,
        tls: true,
        what: What::Handshake(false),
        aims: None,
    },
    Line {
        name: "resumed handshake",
        http2: false,
        tls: true,
        what: What::Handshake(true),
        aims: None,
    },
    Line {
        name: "plain h1 4 KiB hot",
        http2: false,
        tls: false,
        what: What::Hot(4 * KIB),
        aims: None,
    },
    Line {
        name: "plain h1 4 KiB 100k",
        http2: false,
        tls: false,
        what: What::Even(4 * KIB),
        aims: None,
    },
];

impl Line {
    /// Connections, and requests under way on each.
    fn crowd(&self) -> (usize, usize) {
        match (self.http2, self.what) {
            (_, What::Hot(length)) if length >= 100 * MIB => (4, 1),
            (true, What::Hot(length)) if length >= MIB => (8, 4),
            (true, _) => (8, 32),
            (false, What::Put(_)) => (32, 1),
            (false, What::Handshake(_)) => (16, 1),
            (false, _) => (64, 1),
        }
    }

    /// Objects that must be there.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let object = |number, length| Object { number, length };
        match self.what {
            What::Hot(length) | What::Asked(length) => vec![object(0, length)],
            What::Even(length) | What::Zipf(length) => {
                (0..MANY).map(|number| object(number, length)).collect()
            }
            What::Miss | What::Put(_) | What::Handshake(_) => Vec::new(),
        }
    }

    /// The load on a server. `round` keeps the keys of uploads apart.
    pub(crate) fn load(&self, server: &Server, tls: &Arc<ClientConfig>, round: u64) -> Load {
        let (connections, depth) = self.crowd();
        let (what, ours, plain) = (self.what, server.is_ours, !self.tls);
        let order = match what {
            What::Even(_) => data::order(MANY, false),
            What::Zipf(_) => data::order(MANY, true),
            _ => vec![0],
        };
        let bodies: Vec<_> = match what {
            What::Put(length) => (0..BODIES)
                .map(|number| {
                    let bytes = data::bytes(Object { number, length });
                    let digest = hex(&data::digest(&bytes));
                    (Arc::new(bytes), digest)
                })
                .collect(),
            _ => Vec::new(),
        };
        let mut at = 0_u64;
        let requests = move || {
            at += 1;
            let number = order[at as usize % order.len()];
            match what {
                What::Hot(length) | What::Even(length) | What::Zipf(length) => get(
                    path(plain, Object { number, length }),
                    Some(Object { number, length }),
                ),
                What::Asked(length) => {
                    let object = Object { number, length };
                    let path = match ours {
                        true => path(false, object),
                        false => format!("/asked/{}", object.id()),
                    };
                    get(path, Some(object))
                }
                What::Miss | What::Handshake(_) => {
                    let object = Object {
                        number: u64::MAX - at % 4096,
                        length: 1,
                    };
                    let mut request = get(path(plain, object), None);
                    if let What::Handshake(_) = what {
                        request.headers.push(("Connection", "close".into()));
                    }
                    request
                }
                What::Put(length) => {
                    let (body, digest) = &bodies[at as usize % bodies.len()];
                    let id = Object {
                        number: round << 32 | at,
                        length: length + 1,
                    }
                    .id();
                    put(ours, &id, body, digest)
                }
            }
        };
        Load {
            address: if plain { server.http } else { server.https },
            tls: self.tls.then(|| Arc::clone(tls)),
            http2: self.http2,
            reads: true,
            connections,
            depth,
            requests: Box::new(requests),
        }
    }
}

pub(crate) fn get(path: String, object: Option<Object>) -> Request {
    Request {
        method: "GET",
        path,
        headers: Vec::new(),
        body: None,
        status: if object.is_some() { 200 } else { 404 },
        object,
    }
}

/// An upload with its digest declared; nginx knows of none.
pub(crate) fn put(ours: bool, id: &str, body: &Arc<Vec<u8>>, digest: &str) -> Request {
    let (method, path, status, headers) = match ours {
        true => {
            let kind = ("Content-Type", "application/octet-stream".to_owned());
            let digest = ("tuist-checksum-sha256", digest.to_owned());
            ("POST", cas(id), 204, vec![kind, digest])
        }
        false => ("PUT", format!("/put/{id}"), 201, Vec::new()),
    };
    Request {
        method,
        path,
        headers,
        body: Some(Arc::clone(body)),
        status,
        object: None,
    }
}

fn cas(id: &str) -> String {
    cas_of("acme", id)
}

/// The path of an object of an account.
pub(crate) fn cas_of(account: &str, id: &str) -> String {
    format!("/api/cache/cas/{id}?account_handle={account}&project_handle=app")
}

/// Whether an object is longer than Tuist's clients put at once, and so another client's.
pub(crate) fn is_foreign(object: Object) -> bool {
    object.length > 25 * MIB
}

/// The path of an object of a client that is not Tuist's.
pub(crate) fn foreign(object: Object) -> String {
    format!("/cache/acme/app/bench/{}", object.id())
}

/// The path of an object, the same on all servers.
fn path(plain: bool, object: Object) -> String {
    match plain || is_foreign(object) {
        true => foreign(object),
        false => cas(&object.id()),
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
