//! A question to the service on this machine, over HTTPS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cache::certificate::unchecked;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

/// More than this of an answer is not read, in bytes.
const LIMIT: usize = 16 * 1024;

/// `GET path` from `address`, which has to be a loopback address. Returns the status.
///
/// # Errors
///
/// There was no answer within `patience`, or it was not HTTP.
pub(crate) fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<u16> {
    if !address.ip().is_loopback() {
        bail!("{address} is not this machine, and its certificate would not be checked");
    }
    let end = Instant::now() + patience;
    let mut stream = connect(address, patience)?;
    set_patience(&stream, end)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .context("the question was not taken")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.contains(&b'\n') && answer.len() < LIMIT {
        set_patience(&stream, end)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("no answer"),
        }
    }
    status(&answer).with_context(|| format!("{address} does not speak HTTP"))
}

/// The certificate (DER) that the service at `address`, a loopback address, shows.
///
/// # Errors
///
/// It shows none within `patience`.
pub(crate) fn certificate(address: SocketAddr, patience: Duration) -> Result<Vec<u8>> {
    if !address.ip().is_loopback() {
        bail!("{address} is not this machine");
    }
    let end = Instant::now() + patience;
    let mut stream = connect(address, patience)?;
    while stream.conn.is_handshaking() {
        set_patience(&stream, end)?;
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let shown = stream.conn.peer_certificates();
    let first = shown.and_then(<[_]>::first);
    Ok(first.context("it shows no certificate")?.to_vec())
}

fn connect(
    address: SocketAddr,
    patience: Duration,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let patience = patience.max(Duration::from_millis(1));
    let stream = TcpStream::connect_timeout(&address, patience).context("no connection")?;
    stream.set_write_timeout(Some(patience))?;
    let config = unchecked::client(&["http/1.1"])?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    Ok(StreamOwned::new(connection, stream))
}

fn set_patience(stream: &StreamOwned<ClientConnection, TcpStream>, end: Instant) -> Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        bail!("no answer in time");
    }
    Ok(stream.sock.set_read_timeout(Some(left))?)
}

/// The status of an answer of HTTP/1.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer
        .split(|&byte| byte == b'\r' || byte == b'\n')
        .next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words
        .next()?
        .starts_with("HTTP/1.")
        .then(|| words.next()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server with a self-signed certificate that answers one question with `answer`.
    fn serve(answer: &'static [u8]) -> SocketAddr {
        let own = rcgen::generate_simple_self_signed(["example.org".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.unwrap())
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            // One read gives as much of it as one TLS record has.
            let (mut question, mut piece) = (Vec::new(), [0; 1024]);
            while !question.ends_with(b"\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "the question has no end");
                question.extend_from_slice(&piece[..count]);
            }
            assert!(question.starts_with(b"GET /up HTTP/1.1\r\n"));
            let _ = stream.write_all(answer);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        address
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn the_status_is_read() {
        assert_eq!(
            get(serve(b"HTTP/1.1 200 OK\r\n\r\nok"), "/up", SOON).unwrap(),
            200
        );
        assert_eq!(
            get(serve(b"HTTP/1.1 503 No\r\n\r\n"), "/up", SOON).unwrap(),
            503
        );
        let error = get(serve(b"hello"), "/up", SOON).unwrap_err().to_string();
        assert!(error.ends_with("does not speak HTTP"), "{error}");
    }

    #[test]
    fn silence_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(get(address, "/up", Duration::from_millis(300)).is_err());
    }

    #[test]
    fn only_this_machine_is_asked() {
        let error = get("192.0.2.1:443".parse().unwrap(), "/up", SOON)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("192.0.2.1:443 is not this machine"),
            "{error}"
        );
    }

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.0 204 \r\n"), Some(204));
        for bad in ["", "HTTP/1.1", "HTTP/1.1 x", "SSH-2.0", "HTTP/1.1  200"] {
            assert_eq!(status(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
