//! Decompression of xz and Zstandard from memory, pulled into buffers of the caller.
//!
//! A [`Inflate`] fills exactly the slice that it is given, so that a file of an archive is decoded
//! straight into its final buffer, and what nobody wants goes through one small scratch buffer.

use liblzma::stream::{Action, MtStreamBuilder, Status, Stream};
use zstd::stream::raw::{Decoder as ZstdDecoder, Operation};

/// How much memory a decoder may ask for: what `xz -9` and `zstd --ultra -22` need, with room for
/// the blocks that the threaded decoder keeps.
const MEMORY_LIMIT: u64 = 512 << 20;
/// The largest Zstandard window that is accepted, as a power of two (128 MiB, the tool's default).
const ZSTD_WINDOW_LOG: u32 = 27;
/// Below this size of compressed input threads cost more than they bring.
const THREADS_FROM: usize = 4 << 20;
/// Size of the buffer into which unwanted bytes are decoded.
const SCRATCH: usize = 128 << 10;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// The .xz format.
    Xz,
    /// Zstandard frames (RFC 8878).
    Zstd,
}

impl Format {
    /// What the first bytes look like; anything but xz and Zstandard is [`Format::Plain`].
    pub fn sniff(data: &[u8]) -> Self {
        if data.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Xz
        } else if data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

/// Why decompression stopped.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InflateError {
    /// The compressed bytes are damaged, of another format, or need too much memory.
    #[error("the compressed data are bad at byte {offset}: {reason}")]
    Bad {
        /// How many compressed bytes had been taken.
        offset: u64,
        /// What the decoder says.
        reason: String,
    },
    /// The data end before the reader had what it was promised.
    #[error("the data end after {have} decompressed bytes, in the middle of something")]
    Truncated {
        /// Decompressed bytes there were.
        have: u64,
    },
    /// More comes out than the caller allows.
    #[error("more than the allowed {limit} bytes come out of the compressed data")]
    TooBig {
        /// The limit in bytes.
        limit: u64,
    },
}

enum Engine {
    Plain,
    Xz(Box<Stream>),
    Zstd(Box<ZstdDecoder<'static>>),
}

/// A decoder over compressed bytes in memory.
pub struct Inflate<'a> {
    engine: Engine,
    input: &'a [u8],
    /// Compressed bytes taken so far.
    taken: usize,
    /// Decompressed bytes given so far.
    given: u64,
    ended: bool,
    scratch: Vec<u8>,
}

impl<'a> Inflate<'a> {
    /// Starts to decode `input`; xz streams of several blocks use up to `threads` threads.
    ///
    /// # Errors
    /// [`InflateError::Bad`] if the decoder cannot be set up.
    pub fn new(format: Format, input: &'a [u8], threads: u32) -> Result<Self, InflateError> {
        let setup = |reason: String| InflateError::Bad { offset: 0, reason };
        let engine = match format {
            Format::Plain => Engine::Plain,
            Format::Xz if threads > 1 && input.len() >= THREADS_FROM => {
                let stream = MtStreamBuilder::new()
                    .threads(threads)
                    .memlimit_threading(MEMORY_LIMIT)
                    .memlimit_stop(MEMORY_LIMIT)
                    .decoder()
                    .map_err(|e| setup(e.to_string()))?;
                Engine::Xz(Box::new(stream))
            }
            Format::Xz => {
                let stream = Stream::new_stream_decoder(MEMORY_LIMIT, 0)
                    .map_err(|e| setup(e.to_string()))?;
                Engine::Xz(Box::new(stream))
            }
            Format::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|e| setup(e.to_string()))?;
                decoder
                    .set_parameter(zstd::stream::raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .map_err(|e| setup(e.to_string()))?;
                Engine::Zstd(Box::new(decoder))
            }
        };
        Ok(Self {
            engine,
            input,
            taken: 0,
            given: 0,
            ended: false,
            scratch: Vec::new(),
        })
    }

    /// Decompressed bytes given so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Fills as much of `out` as there is; how much that was (less only at the end of the data).
    ///
    /// # Errors
    /// [`InflateError::Bad`].
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, InflateError> {
        let mut done = 0;
        let mut stalled = false;
        while done < out.len() && !self.ended {
            let (used, made) = self.step(&mut out[done..])?;
            self.taken += used;
            self.given += made as u64;
            done += made;
            if used == 0 && made == 0 && !self.ended {
                // Twice nothing with output space left: the input ends before the stream does.
                if stalled {
                    return Err(InflateError::Truncated { have: self.given });
                }
                stalled = true;
            } else {
                stalled = false;
            }
        }
        Ok(done)
    }

    /// One call of the decoder: how much it took and made.
    fn step(&mut self, out: &mut [u8]) -> Result<(usize, usize), InflateError> {
        let input = &self.input[self.taken..];
        match &mut self.engine {
            Engine::Plain => {
                let n = input.len().min(out.len());
                out[..n].copy_from_slice(&input[..n]);
                self.ended = n == input.len();
                Ok((n, n))
            }
            Engine::Xz(stream) => {
                let before = (stream.total_in(), stream.total_out());
                let status =
                    stream
                        .process(input, out, Action::Finish)
                        .map_err(|e| InflateError::Bad {
                            offset: stream.total_in(),
                            reason: e.to_string(),
                        })?;
                let used = (stream.total_in() - before.0) as usize;
                self.ended = status == Status::StreamEnd;
                Ok((used, (stream.total_out() - before.1) as usize))
            }
            Engine::Zstd(decoder) => {
                let status = decoder
                    .run_on_buffers(input, out)
                    .map_err(|e| InflateError::Bad {
                        offset: self.taken as u64,
                        reason: e.to_string(),
                    })?;
                // `remaining == 0` is the end of a frame; another one may follow.
                self.ended = status.remaining == 0 && status.bytes_read == input.len();
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }

    /// Fills all of `out`.
    ///
    /// # Errors
    /// [`InflateError::Bad`], [`InflateError::Truncated`].
    pub fn read_exact(&mut self, out: &mut [u8]) -> Result<(), InflateError> {
        if self.read(out)? < out.len() {
            return Err(InflateError::Truncated { have: self.given });
        }
        Ok(())
    }

    /// Decodes `count` bytes and forgets them.
    ///
    /// # Errors
    /// [`InflateError::Bad`], [`InflateError::Truncated`].
    pub fn skip(&mut self, count: u64) -> Result<(), InflateError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(SCRATCH, 0);
        let mut left = count;
        let result = loop {
            if left == 0 {
                break Ok(());
            }
            let n = left.min(SCRATCH as u64) as usize;
            if let Err(error) = self.read_exact(&mut scratch[..n]) {
                break Err(error);
            }
            left -= n as u64;
        };
        self.scratch = scratch;
        result
    }

    /// Decodes to the end of the data, so that the checksums at their end are looked at; refuses
    /// more than `limit` bytes. Input after the end of an xz stream is an error.
    ///
    /// # Errors
    /// [`InflateError::Bad`], [`InflateError::Truncated`], [`InflateError::TooBig`].
    pub fn finish(mut self, limit: u64) -> Result<(), InflateError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(SCRATCH, 0);
        let start = self.given;
        while self.read(&mut scratch)? > 0 {
            if self.given - start > limit {
                return Err(InflateError::TooBig { limit });
            }
        }
        if self.taken < self.input.len() {
            return Err(InflateError::Bad {
                offset: self.taken as u64,
                reason: "something follows the end of the compressed data".to_string(),
            });
        }
        Ok(())
    }
}

/// Decompresses `input` whole, with one thread, to at most `limit` bytes.
///
/// # Errors
/// [`InflateError`].
pub fn inflate(format: Format, input: &[u8], limit: u64) -> Result<Vec<u8>, InflateError> {
    let mut inflate = Inflate::new(format, input, 1)?;
    let mut out = Vec::new();
    let mut size = (input.len() * 4).clamp(4 << 10, 1 << 20);
    loop {
        let start = out.len();
        if start as u64 > limit {
            return Err(InflateError::TooBig { limit });
        }
        out.resize(start + size, 0);
        let n = inflate.read(&mut out[start..])?;
        out.truncate(start + n);
        if n < size {
            break;
        }
        size = (out.len()).min(8 << 20);
    }
    if out.len() as u64 > limit {
        return Err(InflateError::TooBig { limit });
    }
    inflate.finish(0)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut out = liblzma::write::XzEncoder::new(Vec::new(), 6);
        out.write_all(data).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn all_formats_come_back() {
        let data: Vec<u8> = (0..300_000u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        let mut two_frames = zstd::encode_all(&data[..1000], 3).unwrap();
        two_frames.extend(zstd::encode_all(&data[1000..], 3).unwrap());
        for packed in [xz(&data), two_frames, data.clone()] {
            let format = Format::sniff(&packed);
            assert_eq!(inflate(format, &packed, 2 << 20).unwrap(), data);
            assert_eq!(
                inflate(format, &packed, 1000),
                Err(InflateError::TooBig { limit: 1000 })
            );
            let mut pull = Inflate::new(format, &packed, 2).unwrap();
            let mut some = [0; 777];
            pull.read_exact(&mut some).unwrap();
            assert_eq!(some[..], data[..777]);
            pull.skip(500_000).unwrap();
            pull.read_exact(&mut some).unwrap();
            assert_eq!(some[..], data[500_777..501_554]);
        }
        assert_eq!(inflate(Format::Xz, &xz(b""), 0).unwrap(), b"");
    }

    #[test]
    fn damage_is_an_error() {
        let data = vec![7; 50_000];
        for packed in [xz(&data), zstd::encode_all(&data[..], 3).unwrap()] {
            let format = Format::sniff(&packed);
            for cut in 0..packed.len() {
                assert!(
                    inflate(format, &packed[..cut], 1 << 20).is_err(),
                    "cut {cut}"
                );
            }
            let mut more = packed.clone();
            more.push(1);
            assert!(inflate(format, &more, 1 << 20).is_err());
        }
        let mut flipped = xz(&data);
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        assert!(matches!(
            inflate(Format::Xz, &flipped, 1 << 20),
            Err(InflateError::Bad { .. })
        ));
    }
}
