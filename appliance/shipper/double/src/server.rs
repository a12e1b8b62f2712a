//! A small HTTP server on the loopback interface that can misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method and target, as in the request line.
    pub line: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status, more headers (`Name: value`), body.
    Answer(u16, Vec<String>, String),
    /// Closes the connection.
    Drop,
    /// These bytes, then closes the connection.
    Raw(Vec<u8>),
    /// Says nothing until the client goes away.
    Hang,
    /// Becomes a tunnel to this address, as an HTTP proxy does.
    Tunnel(SocketAddr),
}

impl Reply {
    /// An answer without more headers.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::Answer(status, Vec::new(), body.into())
    }
}

/// A running server; it ends with the value.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Starts a server with an answer to every request.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub fn start(handler: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    /// The same with TLS.
    ///
    /// # Panics
    ///
    /// There is no free port.
    pub fn start_with(
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
        let address = listener.local_addr().expect("the address of a listener");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let handler = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else {
                    continue;
                };
                let (handler, tls) = (Arc::clone(&handler), tls.clone());
                std::thread::spawn(move || {
                    // A client that goes away is no concern of a server.
                    let _ = match tls {
                        None => plain(stream, &*handler),
                        Some(config) => rustls::ServerConnection::new(config)
                            .map_err(std::io::Error::other)
                            .and_then(|connection| {
                                let stream = rustls::StreamOwned::new(connection, stream);
                                serve(&mut BufReader::new(stream), &*handler).map(drop)
                            }),
                    };
                });
            }
        });
        Self { address, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn plain(stream: TcpStream, handler: &dyn Fn(Request) -> Reply) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    if let Some(address) = serve(&mut reader, handler)? {
        let mut up = TcpStream::connect(address)?;
        let mut from = reader.into_inner();
        from.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut back_from, mut back_to) = (up.try_clone()?, from.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut from, &mut up);
        let _ = up.shutdown(std::net::Shutdown::Both);
    }
    Ok(())
}

/// Serves a connection to its end, or until it becomes a tunnel.
fn serve<S: Read + Write>(
    reader: &mut BufReader<S>,
    handler: &dyn Fn(Request) -> Reply,
) -> std::io::Result<Option<SocketAddr>> {
    while let Some(request) = read(reader)? {
        match handler(request) {
            Reply::Answer(status, headers, body) => {
                let mut answer =
                    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
                if status == 204 {
                    answer = "HTTP/1.1 204 No Content\r\n".into();
                }
                for header in headers {
                    answer.push_str(&format!("{header}\r\n"));
                }
                answer.push_str("\r\n");
                answer.push_str(&body);
                reader.get_mut().write_all(answer.as_bytes())?;
                reader.get_mut().flush()?;
            }
            Reply::Drop => return Ok(None),
            Reply::Raw(bytes) => {
                reader.get_mut().write_all(&bytes)?;
                reader.get_mut().flush()?;
                return Ok(None);
            }
            Reply::Hang => {
                let mut nothing = Vec::new();
                reader.read_to_end(&mut nothing)?;
                return Ok(None);
            }
            Reply::Tunnel(address) => return Ok(Some(address)),
        }
    }
    Ok(None)
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        std::io::Result::Ok(line.trim_end().to_owned())
    };
    let line = next()?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let header = next()?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        line,
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}
