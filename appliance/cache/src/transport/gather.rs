//! Answers of one connection that are ready together leave together.
//!
//! The HTTP/2 library writes and flushes frame by frame: for small answers that is a TLS record and a
//! system call each, which cost more than all the rest. A [`Gathered`] stream keeps what is written
//! until the connection has nothing more to say for now ([`Gather::poll_flush`]) or until it is as much
//! as some full records.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that wait: four full TLS records.
const MOST: usize = 64 * 1024;

struct Inner<S> {
    stream: S,
    waiting: Vec<u8>,
    /// Of the bytes that wait, those that were written already.
    written: usize,
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    /// Writes all that waits.
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            let wrote = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
        }
        // Kept: the next answers come soon, or the connection gives it back.
        self.waiting.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// The stream, for the HTTP library.
pub(super) struct Gathered<S>(Arc<Mutex<Inner<S>>>);

/// The same stream, for whoever drives the connection.
pub(super) struct Gather<S>(Arc<Mutex<Inner<S>>>);

/// Both ends of a stream.
pub(super) fn gather<S>(stream: S) -> (Gathered<S>, Gather<S>) {
    let inner = Arc::new(Mutex::new(Inner {
        stream,
        waiting: Vec::new(),
        written: 0,
    }));
    (Gathered(Arc::clone(&inner)), Gather(inner))
}

fn lock<S>(inner: &Mutex<Inner<S>>) -> MutexGuard<'_, Inner<S>> {
    // Only one task has both ends; after a panic it is gone.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Whether something waits.
    pub(super) fn has_some(&self) -> bool {
        !lock(&self.0).waiting.is_empty()
    }

    /// Writes what waits to the socket.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_write_out(context))?;
        Pin::new(&mut inner.stream).poll_flush(context)
    }

    /// Gives the memory back while the connection is idle.
    pub(super) fn shrink(&self) {
        let mut inner = lock(&self.0);
        if inner.waiting.is_empty() {
            inner.waiting = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if inner.waiting.len() >= MOST {
            ready!(inner.poll_write_out(context))?;
        }
        let mut taken = 0;
        for slice in slices {
            let room = MOST - inner.waiting.len();
            let some = &slice[..slice.len().min(room)];
            inner.waiting.extend_from_slice(some);
            taken += some.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves it waiting: the library flushes after each frame.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_write_out(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_waits_until_it_is_flushed_or_much() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut stream, gather) = gather(ours);
        stream.write_all(b"ab").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"c").await.unwrap();
        assert!(gather.has_some());
        std::future::poll_fn(|context| gather.poll_flush(context))
            .await
            .unwrap();
        assert!(!gather.has_some());
        gather.shrink();
        let mut buffer = [0; 8];
        assert_eq!(theirs.read(&mut buffer).await.unwrap(), 3);
        // More than waits: what came before leaves by itself.
        stream.write_all(&vec![1; MOST + 1]).await.unwrap();
        let mut all = vec![0; MOST];
        theirs.read_exact(&mut all).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [1]);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_stops_the_writer() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let (mut stream, gather) = gather(ours);
        let mut whole = Box::pin(stream.write_all(&[7; 2 * MOST]));
        let waker = std::task::Waker::noop();
        assert!(
            whole
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        assert!(gather.has_some());
        let reading = async {
            let mut all = vec![0; 2 * MOST - 16];
            theirs.read_exact(&mut all).await.unwrap();
        };
        let flushed = async {
            whole.await.unwrap();
            std::future::poll_fn(|context| gather.poll_flush(context)).await
        };
        let (_, flushed) = tokio::join!(reading, flushed);
        flushed.unwrap();
    }
}
