//! A socket that is read in large pieces where much comes.
//!
//! The TLS library asks for 4 KiB at a time, a quarter of a full record. Once it got all that it asked
//! for, the rest of what the kernel has is read too, and kept for its next questions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read ahead at most: two full records.
const AHEAD: usize = 33 * 1024;

/// A stream with what was read ahead.
pub(super) struct Ahead<S> {
    stream: S,
    /// Empty while little comes: connections that only ask hold nothing.
    kept: Vec<u8>,
    taken: usize,
}

impl<S> Ahead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            kept: Vec::new(),
            taken: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken == this.kept.len() {
            if this.kept.capacity() == 0 {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
                if buffer.remaining() == 0 && buffer.filled().len() > before {
                    this.kept = Vec::with_capacity(AHEAD);
                    this.taken = 0;
                }
                return Poll::Ready(Ok(()));
            }
            this.kept.clear();
            this.taken = 0;
            let mut spare = ReadBuf::uninit(this.kept.spare_capacity_mut());
            let read = Pin::new(&mut this.stream).poll_read(context, &mut spare);
            let came = spare.filled().len();
            if read.is_pending() || came < buffer.remaining() {
                // Little comes: what came is handed out, and nothing is kept any more.
                let came = &spare.filled()[..came];
                buffer.put_slice(came);
                this.kept = Vec::new();
                return read;
            }
            // SAFETY: the reader filled so many bytes of the spare capacity.
            unsafe { this.kept.set_len(came) };
            ready!(read)?;
        }
        let rest = &this.kept[this.taken..];
        let now = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..now]);
        this.taken += now;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn nothing_is_lost_however_it_comes() {
        let (ours, mut theirs) = tokio::io::duplex(100_000);
        let mut ahead = Ahead::new(ours);
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        for piece in sent.chunks(70_001) {
            theirs.write_all(piece).await.unwrap();
            let until = got.len() + piece.len();
            while got.len() < until {
                let read = ahead.read(&mut buffer).await.unwrap();
                got.extend_from_slice(&buffer[..read]);
            }
        }
        assert_eq!(got, sent);
        // A little, and the memory is given back.
        theirs.write_all(b"abc").await.unwrap();
        assert_eq!(ahead.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(ahead.kept.capacity(), 0);
        drop(theirs);
        assert_eq!(ahead.read(&mut buffer).await.unwrap(), 0);
    }
}
