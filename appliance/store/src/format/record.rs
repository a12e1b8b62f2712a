//! Records of the log (`FORMAT.md` 1.2).

use bytes::Bytes;

use super::{ALIGN, BLOCK, Fields, align};
use crate::key::{Hash, Key, Parts};

/// Length of the fixed part in bytes.
pub(crate) const FIXED: usize = 112;
/// Longest head in bytes.
pub(crate) const HEAD_LIMIT: usize = 1 << 20;
/// Most named keys.
pub(crate) const NAMES_LIMIT: usize = 16 * 1024;
const MAGIC: &[u8; 4] = b"LREC";

/// Key-value entry: kept by time of last use.
pub(crate) const ENTRY: u8 = 1;
/// Has a note that a `ReplaceUntagged` put must not replace.
pub(crate) const TAGGED: u8 = 2;
/// Not to be evicted while the share of pinned bytes allows it.
pub(crate) const PINNED: u8 = 4;
/// The uploader declared a SHA-256.
pub(crate) const DIGEST: u8 = 8;
/// Names other keys.
pub(crate) const NAMES: u8 = 16;
/// The body is in a file of its own.
pub(crate) const LARGE: u8 = 32;
const KNOWN: u8 = 63;

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The key means this object.
    Object = 1,
    /// The key means nothing.
    Removal = 2,
    /// The object of the key is pinned.
    Pin = 3,
    /// It is no more.
    Unpin = 4,
}

impl Kind {
    pub(crate) fn parse(code: u8) -> Option<Self> {
        [Self::Object, Self::Removal, Self::Pin, Self::Unpin]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// Who stored an object: kept with it, so that a poisoned build can be traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// First bytes of a hash of the token.
    pub fingerprint: [u8; 8],
    /// The subject that the token names.
    pub subject: String,
    /// Id of the request.
    pub request: String,
}

/// The head of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) tag: u64,
    /// Bytes of the object.
    pub(crate) length: u64,
    /// When it was stored, ms since 1970.
    pub(crate) time: u64,
    pub(crate) content: Hash,
    /// Generation of the project.
    pub(crate) generation: u64,
    /// Number of the file of its own, or 0.
    pub(crate) file: u64,
    pub(crate) key: Parts,
    pub(crate) writer: Writer,
    pub(crate) note: Vec<u8>,
    pub(crate) sha256: Option<[u8; 32]>,
    /// Tags of the keys that it names.
    pub(crate) names: Vec<u64>,
    /// CRC of each block of the body.
    pub(crate) blocks: Vec<u32>,
}

impl Head {
    /// A removal, pin or unpin of a key.
    pub(crate) fn mark(kind: Kind, key: &Key, tag: u64, generation: u64, time: u64) -> Self {
        Self {
            kind,
            flags: 0,
            tag,
            length: 0,
            time,
            content: [0; 16],
            generation,
            file: 0,
            key: key.parts(),
            writer: Writer::default(),
            note: Vec::new(),
            sha256: None,
            names: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Appends the head for the segment of `generation`; the body follows, unless it has a file of its
    /// own, then [`pad`].
    pub(crate) fn write(&self, generation: u64, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(MAGIC);
        to.extend_from_slice(&[0; 4]);
        // The low half is what the format wants.
        to.extend_from_slice(&(generation as u32).to_le_bytes());
        to.push(self.kind as u8);
        to.push(self.flags);
        // Limits are checked where a put begins.
        to.extend_from_slice(&(self.names.len() as u16).to_le_bytes());
        to.extend_from_slice(&[0; 8]);
        to.extend_from_slice(&self.tag.to_le_bytes());
        to.extend_from_slice(&self.length.to_le_bytes());
        to.extend_from_slice(&self.time.to_le_bytes());
        to.extend_from_slice(&self.content);
        to.extend_from_slice(&self.generation.to_le_bytes());
        to.extend_from_slice(&self.file.to_le_bytes());
        to.extend_from_slice(&self.writer.fingerprint);
        let [a, b, c, d, e, f] = self.key.each();
        let texts = [
            a.as_bytes(),
            b.as_bytes(),
            c.as_bytes(),
            d.as_bytes(),
            e.as_bytes(),
            f.as_bytes(),
            self.writer.subject.as_bytes(),
            self.writer.request.as_bytes(),
            &self.note,
        ];
        for text in texts {
            to.extend_from_slice(&(text.len() as u16).to_le_bytes());
        }
        to.extend_from_slice(&[0; 6]);
        for text in texts {
            to.extend_from_slice(text);
        }
        if let Some(sha256) = &self.sha256 {
            to.extend_from_slice(sha256);
        }
        for name in &self.names {
            to.extend_from_slice(&name.to_le_bytes());
        }
        to.resize(start + (to.len() - start).next_multiple_of(4), 0);
        for block in &self.blocks {
            to.extend_from_slice(&block.to_le_bytes());
        }
        let length = (to.len() - start) as u32;
        to[start + 16..start + 20].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&to[start + 8..]);
        to[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Parses the head at the start of `bytes`, which may end before the head does: [`Parsed::Short`]
    /// says how much is needed.
    pub(crate) fn parse(bytes: &[u8], generation: u64) -> Parsed {
        let Some(length) = head_length(bytes, generation) else {
            return Parsed::Damaged;
        };
        if length > bytes.len() {
            return Parsed::Short(length);
        }
        match Self::parse_whole(&bytes[..length]) {
            Some(head) => Parsed::Head(Box::new(head), length),
            None => Parsed::Damaged,
        }
    }

    fn parse_whole(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        fields.bytes(4)?;
        if fields.u32()? != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        fields.bytes(4)?;
        let (kind, flags) = (Kind::parse(fields.u8()?)?, fields.u8()?);
        let names = fields.u16()?;
        fields.bytes(4)?;
        fields.zeros(4)?;
        let (tag, length, time) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (content, generation, file) = (fields.array()?, fields.u64()?, fields.u64()?);
        let fingerprint = fields.array()?;
        let mut lengths = [0; 9];
        for length in &mut lengths {
            *length = usize::from(fields.u16()?);
        }
        fields.zeros(6)?;
        let mut texts = [""; 8];
        for (text, length) in texts.iter_mut().zip(lengths) {
            *text = std::str::from_utf8(fields.bytes(length)?).ok()?;
        }
        let note = fields.bytes(lengths[8])?.to_vec();
        let sha256 = match flags & DIGEST {
            0 => None,
            _ => Some(fields.array()?),
        };
        let names = (0..names)
            .map(|_| fields.u64())
            .collect::<Option<Vec<_>>>()?;
        let count = usize::try_from(length.div_ceil(BLOCK as u64)).ok()?;
        let padding = fields.0.len().checked_sub(count.checked_mul(4)?)?;
        if padding > 3 || flags & !KNOWN != 0 || (flags & LARGE != 0) != (file != 0) {
            return None;
        }
        fields.zeros(padding)?;
        let blocks = (0..count)
            .map(|_| fields.u32())
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            kind,
            flags,
            tag,
            length,
            time,
            content,
            generation,
            file,
            key: Parts::new(&texts[..6])?,
            writer: Writer {
                fingerprint,
                subject: texts[6].into(),
                request: texts[7].into(),
            },
            note,
            sha256,
            names,
            blocks,
        })
    }

    /// Bytes of the body in the log.
    pub(crate) fn inline(&self) -> u64 {
        if self.flags & LARGE == 0 {
            self.length
        } else {
            0
        }
    }

    /// Whether a whole body is the one that was stored.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() as u64 == self.length && self.checks(0, body)
    }

    /// Whether bytes that begin at block `first` and end with a block, or the body, are right.
    pub(crate) fn checks(&self, first: usize, bytes: &[u8]) -> bool {
        let blocks = self.blocks.get(first..).unwrap_or_default();
        let mut pieces = bytes.chunks(BLOCK);
        pieces.len() <= blocks.len()
            && pieces
                .by_ref()
                .zip(blocks)
                .all(|(piece, crc)| crc32c::crc32c(piece) == *crc)
    }
}

/// An object as its record was read, checked, and not taken apart: what most reads need lies at fixed
/// places, and to make a [`Head`] costs more than to copy the bytes of a small object.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    head: usize,
}

impl Frame {
    /// A whole record of the object `key` that names no others, has its body with it, and is right in
    /// every byte; `None` for any other, and for all that is not as it should be.
    pub(crate) fn of(
        bytes: Bytes,
        segment: u64,
        key: &Key,
        tag: u64,
        generation: u64,
    ) -> Option<Self> {
        let length = head_length(&bytes, segment)?;
        let head = bytes.get(..length)?;
        let frame = Self {
            bytes: bytes.clone(),
            head: length,
        };
        let (kind, flags, names) = (head[12], head[13], &head[14..16]);
        let ours = head[4..8] == crc32c::crc32c(&head[8..]).to_le_bytes()
            && kind == Kind::Object as u8
            && flags & (NAMES | LARGE | !KNOWN) == 0
            && names == [0; 2]
            && frame.u64(24) == tag
            && frame.u64(64) == generation;
        if !ours {
            return None;
        }
        let mut at = FIXED;
        for (number, part) in key.each().into_iter().enumerate() {
            let end = at + frame.text_length(number);
            if head.get(at..end)? != part.as_bytes() {
                return None;
            }
            at = end;
        }
        at = frame.digest_at() + if flags & DIGEST != 0 { 32 } else { 0 };
        let body_length = usize::try_from(frame.length()).ok()?;
        let table = head.get(at.next_multiple_of(4)..)?;
        let body = bytes.get(length..length.checked_add(body_length)?)?;
        let mut pieces = body.chunks(BLOCK).zip(table.chunks_exact(4));
        let right = table.len() == 4 * body_length.div_ceil(BLOCK)
            && pieces.all(|(piece, crc)| crc32c::crc32c(piece).to_le_bytes() == crc);
        right.then_some(frame)
    }

    fn u64(&self, at: usize) -> u64 {
        // The fixed part is there.
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(word)
    }

    fn text_length(&self, number: usize) -> usize {
        let at = 88 + 2 * number;
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn text_at(&self, number: usize) -> usize {
        FIXED
            + (0..number)
                .map(|before| self.text_length(before))
                .sum::<usize>()
    }

    fn digest_at(&self) -> usize {
        self.text_at(9)
    }

    /// Bytes of the object.
    pub(crate) fn length(&self) -> u64 {
        self.u64(32)
    }

    pub(crate) fn time(&self) -> u64 {
        self.u64(40)
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.bytes[48..64]
    }

    pub(crate) fn note(&self) -> &[u8] {
        let at = self.text_at(8);
        &self.bytes[at..at + self.text_length(8)]
    }

    pub(crate) fn sha256(&self) -> Option<[u8; 32]> {
        let at = self.digest_at();
        let digest = Fields(&self.bytes[at..self.head]).array();
        digest.filter(|_| self.bytes[13] & DIGEST != 0)
    }

    pub(crate) fn writer(&self) -> Writer {
        let text = |number| {
            let at = self.text_at(number);
            let bytes = &self.bytes[at..at + self.text_length(number)];
            String::from_utf8_lossy(bytes).into_owned()
        };
        Writer {
            fingerprint: self.u64(80).to_le_bytes(),
            subject: text(6),
            request: text(7),
        }
    }

    pub(crate) fn body(&self) -> Bytes {
        self.bytes
            .slice(self.head..self.head + self.length() as usize)
    }
}

/// What the bytes of a head are.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A head of this length.
    Head(Box<Head>, usize),
    /// This many bytes are needed to know.
    Short(usize),
    /// None.
    Damaged,
}

/// The length that the head at the start of `bytes` claims, if it may be one of this segment.
fn head_length(bytes: &[u8], generation: u64) -> Option<usize> {
    let mut fields = Fields(bytes.get(..FIXED)?);
    let magic = fields.bytes(4)? == MAGIC;
    fields.bytes(4)?;
    let ours = fields.u32()? == generation as u32;
    fields.bytes(4)?;
    let length = fields.u32()? as usize;
    (magic && ours && (FIXED..=HEAD_LIMIT).contains(&length) && length.is_multiple_of(4))
        .then_some(length)
}

/// Fills a record that began at `start` up with zeros.
pub(crate) fn pad(bytes: &mut Vec<u8>, start: usize) {
    let length = align((bytes.len() - start) as u64, ALIGN);
    bytes.resize(start + length as usize, 0);
}

/// The whole record at the start of `bytes`, checked, and its padded length: what the scan of an
/// unsealed segment believes.
pub(crate) fn whole(bytes: &[u8], generation: u64) -> Option<(Box<Head>, u64)> {
    let Parsed::Head(head, length) = Head::parse(bytes, generation) else {
        return None;
    };
    let end = (length as u64).checked_add(head.inline())?;
    if head.flags & LARGE == 0 {
        let body = bytes.get(length..usize::try_from(end).ok()?)?;
        if !head.fits(body) {
            return None;
        }
    }
    Some((head, align(end, ALIGN)))
}

/// CRC of each block of `bytes`.
pub(crate) fn block_table(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(BLOCK).map(crc32c::crc32c).collect()
}
