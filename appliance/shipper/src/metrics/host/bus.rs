//! As much of D-Bus as asking the service manager takes: method calls with strings, over the system's
//! bus (D-Bus Specification, "Message Protocol", "Type System", "Authentication Protocol").
//!
//! Not here: signals, file descriptors, big-endian peers, every other type.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest message in bytes; a thousand units take 200 KiB.
const LARGEST: usize = 16 << 20;
/// For each read and write.
const PATIENCE: Duration = Duration::from_secs(2);
/// Header fields of a message.
const REPLY_SERIAL: u8 = 5;
/// Types of messages.
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A method: destination, path, interface and member.
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// A connection to a bus.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Bus {
    /// Connects and introduces this process.
    pub(super) fn connect(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the bus {}: {error}", path.display());
        let mut stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        write!(stream, "\0AUTH EXTERNAL {user}\r\n").map_err(failed)?;
        let mut bus = Self {
            stream: BufReader::new(stream),
            serial: 0,
        };
        let answer = bus.line().map_err(failed)?;
        if !answer.starts_with("OK ") {
            return Err(format!("the bus {} says {answer:?}", path.display()));
        }
        bus.stream
            .get_mut()
            .write_all(b"BEGIN\r\n")
            .map_err(failed)?;
        let name = "org.freedesktop.DBus";
        bus.call(
            &Method {
                destination: name,
                path: "/org/freedesktop/DBus",
                interface: name,
                member: "Hello",
            },
            &[],
        )?;
        Ok(bus)
    }

    fn line(&mut self) -> std::io::Result<String> {
        use std::io::BufRead;
        let mut line = Vec::new();
        (&mut self.stream).take(512).read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Calls a method whose arguments are strings, and gives the body of the answer.
    pub(super) fn call(
        &mut self,
        method: &Method<'_>,
        strings: &[&str],
    ) -> Result<Vec<u8>, String> {
        let what = method.member;
        self.serial += 1;
        let message = message(self.serial, method, strings);
        let sent = self.stream.get_mut().write_all(&message);
        sent.map_err(|error| format!("{what}: {error}"))?;
        loop {
            let (head, body) = self.receive().map_err(|error| format!("{what}: {error}"))?;
            if head.reply_to != Some(self.serial) {
                continue;
            }
            return match head.kind {
                METHOD_RETURN => Ok(body),
                ERROR => Err(format!(
                    "{what}: {}",
                    Body::new(&body)
                        .string()
                        .unwrap_or("an error without words")
                )),
                _ => continue,
            };
        }
    }

    fn receive(&mut self) -> std::io::Result<(Head, Vec<u8>)> {
        let bad = || std::io::Error::other("an answer that makes no sense");
        let mut fixed = [0; 16];
        self.stream.read_exact(&mut fixed)?;
        let number = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (body, fields) = (number(4), number(12));
        if fixed[0] != b'l' || body > LARGEST || fields > LARGEST {
            return Err(bad());
        }
        let mut header = vec![0; fields.next_multiple_of(8)];
        self.stream.read_exact(&mut header)?;
        let mut content = vec![0; body];
        self.stream.read_exact(&mut content)?;
        let reply_to = reply_serial(&header[..fields]);
        let head = Head {
            kind: fixed[1],
            reply_to,
        };
        Ok((head, content))
    }
}

struct Head {
    kind: u8,
    reply_to: Option<u32>,
}

/// The field REPLY_SERIAL of an array of header fields, which begins at a multiple of 8.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    let mut body = Body::new(fields);
    loop {
        body.align(8);
        let code = body.byte()?;
        let signature = body.signature()?;
        match signature {
            b"u" => {
                let number = body.number()?;
                if code == REPLY_SERIAL {
                    return Some(number);
                }
            }
            b"s" | b"o" => {
                body.string()?;
            }
            b"g" => {
                body.signature()?;
            }
            _ => return None,
        }
    }
}

/// A method call with strings for arguments.
fn message(serial: u32, method: &Method<'_>, strings: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for string in strings {
        put_string(&mut body, string);
    }
    let mut fields = Vec::new();
    let mut field = |code: u8, kind: u8, value: &str| {
        pad(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        if kind == b'g' {
            fields.push(value.len() as u8);
            fields.extend(value.bytes());
            fields.push(0);
        } else {
            put_string(&mut fields, value);
        }
    };
    field(1, b'o', method.path);
    field(2, b's', method.interface);
    field(3, b's', method.member);
    field(6, b's', method.destination);
    if !strings.is_empty() {
        field(8, b'g', &"s".repeat(strings.len()));
    }
    let mut out = vec![b'l', 1, 0, 1];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(serial.to_le_bytes());
    out.extend((fields.len() as u32).to_le_bytes());
    out.extend(fields);
    pad(&mut out, 8);
    out.extend(body);
    out
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    pad(out, 4);
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
    out.push(0);
}

/// Reads values one after the other; `None` when they end, or make no sense.
pub(super) struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Goes on at a multiple of `to`.
    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// `u`, or the length of an array.
    pub(super) fn number(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// `s` or `o`.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let length = self.number()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }

    /// `g`.
    pub(super) fn signature(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        let text = self.take(length.into())?;
        self.take(1)?;
        Some(text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer to the call number `serial`.
    pub(in crate::metrics::host) fn answer(serial: u32, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![b'l', kind, 0, 1];
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(99u32.to_le_bytes());
        // A sender, then the serial.
        let mut fields = vec![7, 1, b's', 0];
        put_string(&mut fields, ":1.5");
        pad(&mut fields, 8);
        fields.extend([REPLY_SERIAL, 1, b'u', 0]);
        fields.extend(serial.to_le_bytes());
        out.extend((fields.len() as u32).to_le_bytes());
        out.extend(fields);
        pad(&mut out, 8);
        out.extend(body);
        out
    }

    pub(in crate::metrics::host) fn strings(texts: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        texts.iter().for_each(|text| put_string(&mut out, text));
        out
    }

    #[test]
    fn a_call_as_the_specification_has_it() {
        let method = Method {
            destination: "d",
            path: "/",
            interface: "i",
            member: "m",
        };
        let call = message(7, &method, &["ab"]);
        assert_eq!(&call[..16], b"l\x01\0\x01\x07\0\0\0\x07\0\0\0\x47\0\0\0");
        assert_eq!(call.len() % 8, 7);
        assert_eq!(&call[call.len() - 7..], b"\x02\0\0\0ab\0");
        assert_eq!(&call[16..26], b"\x01\x01o\0\x01\0\0\0/\0");
    }

    proptest::proptest! {
        #[test]
        fn garbage_does_not_hurt(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            reply_serial(&bytes);
            let mut body = Body::new(&bytes);
            while !body.is_at_end() && body.string().is_some() {}
        }
    }
}
