//! HTTP/1.1 as far as the generator needs it: one request at a time, answers with a length.

use crate::TOKEN;
use crate::generator::{Pending, Shared};

/// One connection.
#[derive(Default)]
pub(crate) struct Http1 {
    pending: Option<Pending>,
    /// A head that is not whole yet.
    head: Vec<u8>,
    status: u16,
    /// Bytes of the body that are to come; `None`: the head is.
    left: Option<u64>,
    closing: bool,
}

impl Http1 {
    pub(crate) fn ask(&mut self, shared: &mut Shared, out: &mut Vec<u8>) {
        if self.pending.is_some() || self.closing {
            return;
        }
        let (request, pending) = shared.next();
        self.pending = Some(pending);
        out.extend_from_slice(request.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(request.path.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ");
        out.extend_from_slice(TOKEN.as_bytes());
        out.extend_from_slice(b"\r\nAccept: */*\r\nUser-Agent: bench\r\n");
        for (name, value) in &request.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = &request.body {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(body);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn take(&mut self, mut bytes: &[u8], shared: &mut Shared) {
        while !bytes.is_empty() {
            if self.left.is_none() {
                let before = self.head.len();
                let from = before.saturating_sub(3);
                self.head.extend_from_slice(&bytes[..bytes.len().min(8192)]);
                let Some(end) = self.head[from..]
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
                else {
                    bytes = &bytes[self.head.len() - before..];
                    continue;
                };
                let end = from + end + 4;
                bytes = &bytes[end - before..];
                self.head.truncate(end);
                self.look();
                self.head.clear();
            }
            let left = self.left.unwrap_or(0);
            let now = left.min(bytes.len() as u64);
            if let Some(pending) = &mut self.pending {
                shared.took(pending, &bytes[..now as usize]);
            }
            bytes = &bytes[now as usize..];
            self.left = Some(left - now);
            if left == now {
                self.left = None;
                let pending = self.pending.take().expect("an answer to nothing");
                shared.ended(pending, self.status);
            }
        }
    }

    fn look(&mut self) {
        let mut lines = self.head.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let status = std::str::from_utf8(&first[9..12]).expect("a status");
        self.status = status.parse().expect("a status");
        self.left = Some(0);
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let value = line[colon + 1..].trim_ascii();
            if line[..colon].eq_ignore_ascii_case(b"content-length") {
                let text = std::str::from_utf8(value).expect("a length");
                self.left = Some(text.parse().expect("a length"));
            } else if line[..colon].eq_ignore_ascii_case(b"connection") {
                self.closing |= value.eq_ignore_ascii_case(b"close");
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.closing && self.pending.is_none()
    }
}
