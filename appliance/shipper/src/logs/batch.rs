//! Lines on their way to the receiver: one request of Loki's push API
//! (`logproto.PushRequest`, `pkg/push/push.proto`), compressed with snappy's block format.

use super::lines::{StreamId, Streams};
use crate::protobuf;

/// Encoded lines in the order of the journal.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// `Entry` messages, one after the other.
    arena: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    stream: StreamId,
    /// Whether it is an entry of the journal, not a line of our own.
    entry: bool,
    start: u32,
    end: u32,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.lines.clear();
        // One monster is no reason to keep its memory.
        if self.arena.capacity() > 4 << 20 {
            self.arena = Vec::new();
        }
    }

    /// Adds what `encode` appends to the buffer that it is given.
    pub(super) fn add(&mut self, entry: bool, encode: impl FnOnce(&mut Vec<u8>) -> StreamId) {
        let start = self.arena.len() as u32;
        let stream = encode(&mut self.arena);
        let end = self.arena.len() as u32;
        self.lines.push(Line {
            stream,
            entry,
            start,
            end,
        });
    }

    /// Lines in it.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Entries of the journal among some of its lines.
    pub(super) fn entries(&self, lines: std::ops::Range<usize>) -> u64 {
        self.lines[lines].iter().filter(|line| line.entry).count() as u64
    }

    /// Bytes of its lines, encoded, not compressed.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The compressed body of a request with some of the lines, in `body`; `raw` is scratch space.
    ///
    /// The same lines of the same batch always give the same bytes, so that a receiver that stored
    /// them and could not say so stores nothing twice.
    pub(super) fn encode(
        &self,
        lines: std::ops::Range<usize>,
        streams: &Streams,
        raw: &mut Vec<u8>,
        body: &mut Vec<u8>,
    ) {
        let lines = &self.lines[lines];
        let mut order: Vec<u32> = (0..lines.len() as u32).collect();
        order.sort_by_key(|&line| lines[line as usize].stream);
        raw.clear();
        for group in order.chunk_by(|&a, &b| lines[a as usize].stream == lines[b as usize].stream) {
            let name = streams.name(lines[group[0] as usize].stream).as_bytes();
            let entries = group.iter().map(|&line| &lines[line as usize]);
            let size: usize = entries
                .clone()
                .map(|line| protobuf::bytes_len((line.end - line.start) as usize))
                .sum();
            protobuf::head(raw, 1, protobuf::bytes_len(name.len()) + size);
            protobuf::bytes(raw, 1, name);
            for line in entries {
                protobuf::bytes(raw, 2, &self.arena[line.start as usize..line.end as usize]);
            }
        }
        compress(raw, body);
    }
}

/// Compresses with snappy's block format, into memory that is used again.
fn compress(raw: &[u8], body: &mut Vec<u8>) {
    body.resize(snap::raw::max_compress_len(raw.len()), 0);
    // Fails only for more than 4 GiB or too small an output.
    let length = snap::raw::Encoder::new().compress(raw, body).unwrap_or(0);
    body.truncate(length);
}
