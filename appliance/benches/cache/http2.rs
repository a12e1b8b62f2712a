//! HTTP/2 (RFC 9113) as far as the generator needs it. Header names and values that stay are put into the
//! dynamic table of HPACK (RFC 7541) with the first request, as clients do; of answers only the
//! status is looked at, which servers send as one byte of the static table.

use crate::TOKEN;
use crate::generator::{Pending, Shared};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// Largest window.
const WINDOW: u32 = (1 << 31) - 1;
/// The window of the connection is opened again after so many bytes.
const REFILL: u32 = 1 << 30;

struct Stream {
    id: u32,
    status: u16,
    pending: Pending,
}

/// One connection.
pub(crate) struct Http2 {
    depth: usize,
    reads: bool,
    greeted: bool,
    next: u32,
    streams: Vec<Stream>,
    head: Vec<u8>,
    /// Type, flags, stream.
    frame: (u8, u8, u32),
    /// Bytes of the payload that are to come.
    left: usize,
    payload: Vec<u8>,
    unacknowledged: u32,
    closing: bool,
}

impl Http2 {
    /// `reads`: whether windows are opened at all.
    pub(crate) fn new(depth: usize, reads: bool) -> Self {
        Self {
            depth,
            reads,
            greeted: false,
            next: 1,
            streams: Vec::with_capacity(depth),
            head: Vec::with_capacity(9),
            frame: (0, 0, 0),
            left: 0,
            payload: Vec::new(),
            unacknowledged: 0,
            closing: false,
        }
    }

    pub(crate) fn ask(&mut self, shared: &mut Shared, out: &mut Vec<u8>) {
        let first = !self.greeted;
        if first {
            self.greeted = true;
            out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            frame(out, SETTINGS, 0, 0, |payload| {
                // No push; the window of a stream.
                let window = if self.reads { WINDOW } else { 65535 };
                for (id, value) in [(2_u16, 0_u32), (4, window)] {
                    payload.extend_from_slice(&id.to_be_bytes());
                    payload.extend_from_slice(&value.to_be_bytes());
                }
            });
            if self.reads {
                update(out, WINDOW - 65535);
            }
        }
        while self.streams.len() < self.depth && !self.closing {
            let (request, pending) = shared.next();
            let id = self.next;
            self.next += 2;
            let fresh = id == 1;
            assert!(request.body.is_none(), "uploads go over HTTP/1.1");
            frame(out, HEADERS, END_STREAM | END_HEADERS, id, |block| {
                match request.method {
                    "GET" => block.push(0x82),
                    method => literal(block, 0x02, method),
                }
                block.push(0x87);
                literal(block, 0x04, &request.path);
                if fresh {
                    literal(block, 0x41, "localhost");
                    literal(block, 0x57, &format!("Bearer {TOKEN}"));
                    literal(block, 0x53, "*/*");
                    literal(block, 0x7a, "bench");
                } else {
                    // The newest entry of the dynamic table has number 62.
                    block.extend_from_slice(&[0xc1, 0xc0, 0xbf, 0xbe]);
                }
                for (name, value) in &request.headers {
                    block.push(0);
                    string(block, name);
                    string(block, value);
                }
            });
            self.streams.push(Stream {
                id,
                status: 0,
                pending,
            });
        }
    }

    pub(crate) fn take(&mut self, mut bytes: &[u8], shared: &mut Shared, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let now = (9 - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..now]);
                bytes = &bytes[now..];
                if self.head.len() < 9 {
                    return;
                }
                let head = &self.head;
                self.left =
                    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW;
                self.frame = (head[3], head[4], id);
                self.head.clear();
                assert!(
                    self.frame.0 != DATA || self.frame.1 & PADDED == 0,
                    "padding"
                );
                if self.left == 0 {
                    self.ended(shared, out);
                    continue;
                }
            }
            let now = self.left.min(bytes.len());
            let (piece, rest) = bytes.split_at(now);
            bytes = rest;
            self.left -= now;
            if self.frame.0 == DATA {
                let id = self.frame.2;
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
                    shared.took(&mut stream.pending, piece);
                }
                self.unacknowledged += now as u32;
            } else {
                self.payload.extend_from_slice(piece);
            }
            if self.left == 0 {
                self.ended(shared, out);
            }
        }
        if self.unacknowledged > REFILL {
            update(out, self.unacknowledged);
            self.unacknowledged = 0;
        }
    }

    /// A frame came whole.
    fn ended(&mut self, shared: &mut Shared, out: &mut Vec<u8>) {
        let (kind, flags, id) = self.frame;
        let payload = std::mem::take(&mut self.payload);
        let at = self.streams.iter().position(|stream| stream.id == id);
        match kind {
            HEADERS => {
                let stream = &mut self.streams[at.expect("an answer to nothing")];
                // Updates of the table's size come first.
                let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                stream.status = match first {
                    Some(0x88) => 200,
                    Some(0x89) => 204,
                    Some(0x8a) => 206,
                    Some(0x8b) => 304,
                    Some(0x8c) => 400,
                    Some(0x8d) => 404,
                    Some(0x8e) => 500,
                    _ => 0,
                };
            }
            RST_STREAM => {
                assert!(!self.reads, "stream {id} was reset: {payload:?}");
                self.streams.retain(|stream| stream.id != id);
            }
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, |_| {}),
            PING if flags & ACK == 0 => {
                frame(out, PING, ACK, 0, |to| to.extend_from_slice(&payload));
            }
            GOAWAY => {
                let last = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
                self.closing = true;
                self.streams.retain(|stream| stream.id <= last);
                assert_eq!(payload[4..8], [0; 4], "an error of the connection");
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS)
            && flags & END_STREAM != 0
            && let Some(at) = at
        {
            let stream = self.streams.swap_remove(at);
            shared.ended(stream.pending, stream.status);
        }
        self.payload = payload;
        self.payload.clear();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.closing && self.streams.is_empty()
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    fill(out);
    let length = (out.len() - at - 9) as u32;
    out[at..at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
}

fn update(out: &mut Vec<u8>, by: u32) {
    frame(out, WINDOW_UPDATE, 0, 0, |payload| {
        payload.extend_from_slice(&by.to_be_bytes());
    });
}

/// A field whose name has a number in the static table.
fn literal(block: &mut Vec<u8>, first: u8, value: &str) {
    block.push(first);
    string(block, value);
}

/// A string without Huffman's code; its length has a prefix of 7 bits (RFC 7541, 5.1).
fn string(block: &mut Vec<u8>, text: &str) {
    let length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            block.push(rest as u8 & 127 | 128);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text.as_bytes());
}
