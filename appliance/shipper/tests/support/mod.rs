//! What several tests need.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod journal;
pub(crate) mod wire;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use receiver_double::{Reply, Server};
use shipper::http::{Client, ClientSettings, Credentials};

/// A program of Debian. Without it the test is left out, loudly; where `CI` is set it fails.
pub(crate) fn program(package: &str, paths: &[&str]) -> Option<PathBuf> {
    let found = paths
        .iter()
        .flat_map(|path| [tools().join(path.trim_start_matches('/')), path.into()])
        .find(|path| path.exists());
    if found.is_none() {
        let what = format!(
            "{} of the Debian package {package} is missing; `make setup-test` brings it",
            paths[0]
        );
        assert!(std::env::var_os("CI").is_none(), "{what}");
        eprintln!("\n*** TEST LEFT OUT: {what} ***\n");
    }
    found
}

/// Where `.ci/setup` unpacks packages whose installation would start services.
fn tools() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("LARDER_CACHE")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|path| PathBuf::from(path).join("larder")))
        .or_else(|| set("HOME").map(|path| PathBuf::from(path).join(".cache/larder")));
    cache.unwrap_or_default().join("tools")
}

/// A server program on the loopback interface that ends with the value.
pub(crate) struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    /// Starts the program on a free port and waits for a line of its log that holds `ready`.
    pub(crate) fn start(command: impl Fn(SocketAddr) -> Command, ready: &str) -> Self {
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut child = command(address)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            let mut log = String::new();
            while stderr.read_line(&mut log).unwrap() > 0 {
                if log.contains(ready) {
                    while TcpStream::connect(address).is_err() {
                        assert!(child.try_wait().unwrap().is_none(), "{log}");
                        std::thread::yield_now();
                    }
                    return Self {
                        child,
                        stderr,
                        address,
                    };
                }
            }
            // Somebody else took the port in between, or it does not work at all.
            eprintln!("{log}");
            let _ = child.wait();
        }
        panic!("the program does not start");
    }

    /// Number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut log = String::new();
        let _ = self.stderr.read_to_string(&mut log);
        if std::thread::panicking() {
            eprintln!("{log}");
        }
    }
}

/// A client without credentials for a URL.
pub(crate) fn client(url: &str) -> Client {
    client_as(url, Credentials::None)
}

/// A client for a URL.
pub(crate) fn client_as(url: &str, credentials: Credentials) -> Client {
    let mut settings = ClientSettings::new(url, "/", credentials, None, None, false).unwrap();
    settings.headers = shipper::http::headers(true);
    Client::new(settings).unwrap()
}

/// A server that gives every request the same reply.
pub(crate) fn always(reply: Reply) -> Server {
    Server::start(move |_| reply.clone())
}
