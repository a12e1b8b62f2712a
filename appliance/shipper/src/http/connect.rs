//! Connections: TCP, through a proxy or not, with TLS or not.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::settings::ClientSettings;

/// Largest answer of a proxy in bytes.
const PROXY_ANSWER: usize = 8 * 1024;

/// A connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection.
///
/// # Errors
///
/// What failed, with the host.
pub(super) async fn connect(settings: &ClientSettings) -> Result<Stream, String> {
    let (host, port) = host_and_port(&settings.url);
    let tcp = match &settings.proxy {
        None => tcp(host, port)
            .await
            .map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?,
        Some(proxy) => {
            let (by, at) = host_and_port(proxy);
            let through = format!("the proxy {by}:{at}");
            let mut stream = tcp(by, at)
                .await
                .map_err(|error| format!("cannot connect to {through}: {error}"))?;
            if settings.tls.is_some() {
                tunnel(&mut stream, &format!("{host}:{port}"))
                    .await
                    .map_err(|error| {
                        format!("{through} does not connect to {host}:{port}: {error}")
                    })?;
            }
            stream
        }
    };
    let Some(config) = &settings.tls else {
        return Ok(Stream::Plain(tcp));
    };
    let name = rustls::pki_types::ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| format!("{host} is no name that a certificate could have"))?;
    let connector = TlsConnector::from(config.clone());
    match connector.connect(name, tcp).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => Err(format!("no TLS with {host}:{port}: {error}")),
    }
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Host and port of an absolute address.
pub(super) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let default = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
        443
    } else {
        80
    };
    (
        uri.host().unwrap_or_default(),
        uri.port_u16().unwrap_or(default),
    )
}

/// Asks a proxy for a tunnel (RFC 9110 section 9.3.6).
async fn tunnel(stream: &mut TcpStream, to: &str) -> std::io::Result<()> {
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // One byte at a time: what follows the answer belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "its answer does not end",
            ));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = answer
        .split(|&byte| byte == b'\r')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    if http && words.next().is_some_and(|status| status.starts_with('2')) {
        return Ok(());
    }
    Err(Error::other(format!("it says {line:?}")))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
