//! One connection: TLS, HTTP/1.1 or HTTP/2 as agreed by ALPN, and its end.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::ahead::Ahead;
use super::framing::Framing;
use super::gather::{Gather, gather};
use crate::body::Body;
use crate::router;
use crate::server::{Listener, Shared};

/// Longest wait for the good end of a connection that timed out.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a request is told about the connection that it came over.
#[derive(Debug)]
pub(crate) struct Connection {
    /// What it is for.
    pub(crate) listener: Listener,
    /// The other end.
    pub(crate) peer: IpAddr,
    /// What happens on it.
    pub(crate) activity: Arc<Activity>,
    requests: AtomicU64,
    /// It ends with the request that is answered next.
    closing: AtomicBool,
    /// It had as many requests as it may have.
    worn: Notify,
}

impl Connection {
    /// Counts a request; after the last one the connection ends well.
    fn count(&self, most: u64) {
        if self.requests.fetch_add(1, Ordering::Relaxed) + 1 >= most {
            self.closing.store(true, Ordering::Relaxed);
            self.worn.notify_one();
        }
    }

    /// Says in a response of HTTP/1 that no other will follow.
    fn mark(&self, response: &mut Response<Body>) {
        if self.closing.load(Ordering::Relaxed) {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Serves a connection until its end; `stop` turns true when the service stops.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: Listener,
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: IpAddr,
    stop: watch::Receiver<bool>,
) {
    shared.metrics.connections.add(1);
    // Small answers go out at once.
    let _ = stream.set_nodelay(true);
    let connection = || {
        Arc::new(Connection {
            listener,
            peer,
            activity: Arc::new(Activity::new(&shared.settings.timeouts)),
            requests: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            worn: Notify::new(),
        })
    };
    if listener != Listener::Https {
        let connection = connection();
        return http1(shared, connection, stream, stop).await;
    }
    let limit = shared.settings.timeouts.handshake;
    let stream = match tokio::time::timeout(limit, tls.accept(Ahead::new(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            shared.metrics.handshake_failures.add(1);
            return log::debug!("TLS handshake: {error}");
        }
        Err(_) => return shared.metrics.handshake_failures.add(1),
    };
    let connection = connection();
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(shared, connection, stream, stop).await;
    } else {
        http1(shared, connection, stream, stop).await;
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    stream: S,
    stop: watch::Receiver<bool>,
) {
    let activity = Arc::clone(&connection.activity);
    let watched = Watched {
        stream,
        activity: Arc::clone(&activity),
        framing: Framing::default(),
        broken: false,
    };
    let service = service_fn(|request| {
        connection.count(shared.settings.transport.requests);
        let answer = router::answer(Arc::clone(&shared), Arc::clone(&connection), request);
        async {
            let mut response = answer.await;
            connection.mark(&mut response);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // Ours: hyper's also ends connections that are idle.
        .header_read_timeout(None)
        .max_headers(100)
        .max_header_size(16 * 1024)
        .max_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(watched), service);
    until_end(served, &connection, None::<Gather<S>>, stop).await;
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    stream: S,
    stop: watch::Receiver<bool>,
) {
    let (stream, gather) = gather(stream);
    let service = service_fn(|request| {
        connection.count(shared.settings.transport.requests);
        let answer = router::answer(Arc::clone(&shared), Arc::clone(&connection), request);
        // Boxed: each stream is a task that would be as large as this future, also while it only waits
        // for the client to read.
        let answer = Box::pin(answer);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(shared.settings.transport.streams)
        // What of a stream waits for the socket; permits go with it.
        .max_send_buf_size(64 * 1024)
        // Against floods of streams that are reset at once.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .max_header_list_size(16 * 1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    until_end(served, &connection, Some(gather), stop).await;
}

/// Waits until the service stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error: the service is gone already.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A connection and, over HTTP/2, the answers that wait to leave together: those that other tasks of
/// this thread have ready are waited for once.
async fn drive<C, S>(
    mut served: Pin<&mut C>,
    gather: Option<&Gather<S>>,
    activity: &Activity,
) -> Result<(), C::Error>
where
    C: GracefulConnection,
    S: AsyncWrite + Unpin,
{
    let Some(gather) = gather else {
        return served.await;
    };
    // Ready answers: the runtime comes back here after everybody else had a turn.
    let mut turn = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(ended) = served.as_mut().poll(context) {
            return Poll::Ready(ended);
        }
        if !gather.has_some() {
            return Poll::Pending;
        }
        let others = turn.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
        if others.as_mut().poll(context).is_ready() {
            turn = None;
            match gather.poll_flush(context) {
                // The client is gone.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if activity.is_idle() => gather.shrink(),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

/// Runs a connection until its end, its time-out, or the stop of the service.
async fn until_end<C, S>(
    served: C,
    connection: &Connection,
    gather: Option<Gather<S>>,
    mut stop: watch::Receiver<bool>,
) where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
    S: AsyncWrite + Unpin,
{
    let activity = &connection.activity;
    let http2 = gather.is_some();
    let gather = gather.as_ref();
    let mut served = pin!(served);
    let (mut stopping, mut worn) = (false, false);
    loop {
        let look = activity.deadline().min(Instant::now() + activity.step());
        tokio::select! {
            ended = drive(served.as_mut(), gather, activity) => {
                if let Err(error) = ended {
                    log::debug!("connection: {error}");
                }
                return;
            }
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.closing.store(true, Ordering::Relaxed);
                // Over HTTP/1 a request may be on its way already: the next one is answered, with
                // the word that it was the last.
                if http2 {
                    served.as_mut().graceful_shutdown();
                }
            }
            () = connection.worn.notified(), if !worn => {
                worn = true;
                if http2 {
                    served.as_mut().graceful_shutdown();
                }
            }
            () = tokio::time::sleep_until(look) => {
                if activity.deadline() > Instant::now() {
                    continue;
                }
                served.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, drive(served.as_mut(), gather, activity)).await;
                return;
            }
        }
    }
}

/// A stream of HTTP/1 that tells the activity when bytes come, and lets nothing through that could
/// be read in two ways.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    framing: Framing,
    broken: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken {
            // The end: what comes now is nobody's request.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes();
            if let Err(at) = self.framing.look(&buffer.filled()[before..]) {
                self.broken = true;
                // No part of a head, a chunk's size or a trailer: the parser answers 400 and ends.
                buffer.set_filled(before + at);
                buffer.put_slice(b"\0");
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
