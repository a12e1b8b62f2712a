//! A strict look at the framing of HTTP/1 requests, before the parser that answers them.
//!
//! Two parsers that see different ends of a request are how one client's request becomes the
//! beginning of another's (request smuggling). RFC 9112 lets a server accept some of what may be
//! read in two ways; this one refuses all of it: `Transfer-Encoding` beside `Content-Length`
//! (6.3), either of them twice, codings other than `chunked`, folded lines (5.2), white space
//! before a colon (5.1), lines that end in LF or CR alone (2.2), and the same within the framing of
//! chunks (7.1).
//!
//! It only looks: where something is wrong, it puts a NUL in place of the rest, which the parser
//! behind it answers with 400 and the end of the connection.

/// Longest line that is looked at, in bytes; the parser refuses such heads anyway.
const LONGEST: usize = 32 * 1024;

/// Follows the bytes that come over one connection.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    head: Head,
}

/// What the head has said so far.
#[derive(Debug, Default)]
struct Head {
    /// A line of it has come.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In the head of a request, or before it.
    #[default]
    Head,
    /// In a body of which so many bytes are left.
    Body(u64),
    /// Before the size of a chunk.
    Size,
    /// In a chunk of which so many bytes are left.
    Chunk(u64),
    /// Before the end of line after a chunk.
    ChunkEnd,
    /// After the last chunk.
    Trailer,
    /// Something was wrong: nothing counts any more.
    Broken,
}

impl Framing {
    /// Looks at bytes that came. `Err`: from there on something is wrong.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Broken => return Err(at),
                State::Body(left) | State::Chunk(left) => {
                    let passed = (*left).min(rest.len() as u64);
                    *left -= passed;
                    at += passed as usize;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Chunk(_) => State::ChunkEnd,
                            _ => State::Head,
                        };
                    }
                }
                _ => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.line.extend_from_slice(rest);
                        if self.line.len() > LONGEST {
                            self.state = State::Broken;
                            return Err(at);
                        }
                        return Ok(());
                    };
                    let whole = if self.line.is_empty() {
                        self.line(&rest[..=end])
                    } else {
                        let mut line = std::mem::take(&mut self.line);
                        line.extend_from_slice(&rest[..=end]);
                        let whole = self.line(&line);
                        line.clear();
                        self.line = line;
                        whole
                    };
                    if whole.is_none() {
                        self.state = State::Broken;
                        return Err(at);
                    }
                    at += end + 1;
                }
            }
        }
        Ok(())
    }

    /// Takes a line with its end. `None`: something is wrong with it.
    fn line(&mut self, line: &[u8]) -> Option<()> {
        let line = line.strip_suffix(b"\r\n")?;
        if line.contains(&b'\r') {
            return None;
        }
        match self.state {
            State::Head if line.is_empty() && !self.head.begun => {}
            State::Head if line.is_empty() => {
                let head = std::mem::take(&mut self.head);
                self.state = match (head.chunked, head.length) {
                    (true, Some(_)) => return None,
                    (true, None) => State::Size,
                    (false, None | Some(0)) => State::Head,
                    (false, Some(length)) => State::Body(length),
                };
            }
            State::Head if !self.head.begun => self.head.begun = true,
            State::Head => self.field(line)?,
            State::Size => {
                let size = line.split(|byte| *byte == b';').next()?;
                let digits = std::str::from_utf8(size).ok()?;
                let digits_only = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                if digits.is_empty() || digits.len() > 15 || !digits_only {
                    return None;
                }
                self.state = match u64::from_str_radix(digits, 16).ok()? {
                    0 => State::Trailer,
                    size => State::Chunk(size),
                };
            }
            State::ChunkEnd if line.is_empty() => self.state = State::Size,
            State::Trailer if line.is_empty() => self.state = State::Head,
            State::Trailer => drop(name_and_value(line)?),
            _ => return None,
        }
        Some(())
    }

    /// Takes a field of the head.
    fn field(&mut self, line: &[u8]) -> Option<()> {
        let (name, value) = name_and_value(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).ok()?;
            let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
            if digits.is_empty() || !digits_only || self.head.chunked {
                return None;
            }
            let length = digits.parse().ok()?;
            if self.head.length.replace(length).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let known = value.eq_ignore_ascii_case(b"chunked");
            if !known
                || self.head.length.is_some()
                || std::mem::replace(&mut self.head.chunked, true)
            {
                return None;
            }
        }
        Some(())
    }
}

/// A field line. `None`: it is none, or folds the one before.
fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let white = |byte: &u8| byte.is_ascii_whitespace();
    (!name.is_empty() && !name.iter().any(white)).then_some((name, value.trim_ascii()))
}

/// Fuzz target: however bytes are cut, the same is wrong with them.
pub(crate) fn fuzz(bytes: &[u8]) {
    let whole = Framing::default().look(bytes).is_err();
    let mut framing = Framing::default();
    let cut = bytes.chunks(3).any(|piece| framing.look(piece).is_err());
    assert_eq!(whole, cut);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether it is all right, however it is cut.
    fn fine(text: &str) -> bool {
        let whole = Framing::default().look(text.as_bytes()).is_ok();
        for size in [1, 2, 7] {
            let mut framing = Framing::default();
            let cut = text
                .as_bytes()
                .chunks(size)
                .all(|piece| framing.look(piece).is_ok());
            assert_eq!(cut, whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn requests_of_every_framing_pass() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let put = "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\rc";
        let none = "PUT / HTTP/1.1\r\ncontent-length:0\r\n\r\n";
        let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       5;x=y\r\na\nb\rc\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        assert!(fine(get));
        // An empty line before a request is let pass (RFC 9112, 2.2).
        assert!(fine(
            &["\r\n", get, get, put, none, chunked, put, get].concat()
        ));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 0x5",
            "Content-Length: 18446744073709551616",
            "Content-Length : 5",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: \u{b}chunked",
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X: a\nContent-Length: 5",
            "X: a\rContent-Length: 5",
            "no colon",
            ": nothing",
        ] {
            assert!(!fine(&head(fields)), "{fields:?}");
        }
        assert!(!fine("GET / HTTP/1.1\nHost: a\n\n"));
        assert!(!fine("\nGET / HTTP/1.1\r\n\r\n"));
        assert!(fine(&head("Content-Length: 0\r\nX: y")));
    }

    #[test]
    fn chunks_are_framed_strictly() {
        let head = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for chunks in [
            "5\nabcde\r\n",
            "5\r\nabcde\n",
            "5\r\nabcdeX\r\n",
            "\r\n",
            "-1\r\n",
            "0x5\r\nabcde\r\n",
            " 5\r\nabcde\r\n",
            "5 \r\nabcde\r\n",
            "fffffffffffffffff\r\n",
            "g\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\n\n",
        ] {
            assert!(!fine(&format!("{head}{chunks}")), "{chunks:?}");
        }
    }

    #[test]
    fn after_a_mistake_nothing_passes() {
        let mut framing = Framing::default();
        let text = b"GET / HTTP/1.1\r\nX: a\n\r\nGET /evil HTTP/1.1\r\n\r\n";
        assert_eq!(framing.look(text), Err(16));
        assert_eq!(framing.look(b"GET / HTTP/1.1\r\n\r\n"), Err(0));
        let mut framing = Framing::default();
        let endless = vec![b'a'; LONGEST + 1];
        assert!(framing.look(&endless).is_err());
    }

    proptest! {
        #[test]
        fn noise(text in "[a\r\n :0-9-]{0,60}") {
            fuzz(text.as_bytes());
            fuzz(format!("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{text}").as_bytes());
        }
    }
}
