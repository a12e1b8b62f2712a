//! What is measured: our daemon with the settings of `configs/`, and nginx.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::TOKEN;
use crate::cores::{self, Core};

/// Argument that makes this program the upstream that nginx asks whether a request may.
pub(crate) const UPSTREAM: &str = "--as-upstream";
/// Journal namespace of the access records.
const NAMESPACE: &str = "larder-bench";

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) is_ours: bool,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    children: Vec<Child>,
}

impl Server {
    /// CPU seconds of all its processes so far.
    pub(crate) fn cpu(&self) -> f64 {
        let roots = self.children.iter().map(Child::id).collect();
        cores::cpu_of_trees(roots)
    }

    /// Resident memory of all its processes in MiB: anonymous pages, the rest is files.
    pub(crate) fn memory(&self) -> f64 {
        let roots = self.children.iter().map(Child::id).collect();
        cores::memory_of_trees(roots)
    }

    /// Process of the daemon.
    pub(crate) fn process(&self) -> u32 {
        self.children[0].id()
    }

    fn wait(self) -> Self {
        let began = Instant::now();
        while TcpStream::connect(self.https).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{} does not start",
                self.name
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            let id = rustix::process::Pid::from_child(child);
            // nginx ends its worker on SIGTERM.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
    }
}

fn free() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

/// The certificate and the key of all servers, and the token of ours: a folder of credentials.
pub(crate) fn credentials(folder: &Path) -> PathBuf {
    let folder = folder.join("credentials");
    std::fs::create_dir_all(&folder).expect("a folder");
    let own = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("a credential");
    };
    write("tls-cert", &own.cert.pem());
    write("tls-key", &own.signing_key.serialize_pem());
    write("larder.cache-token", TOKEN);
    folder
}

/// Our daemon: the settings of `configs/`, with a namespace of the journal that is ours, and plain
/// HTTP for this machine, for the line that needs it.
pub(crate) fn ours(folder: &Path, storage: &Path, credentials: &Path) -> Server {
    let (https, http, metrics) = (free(), free(), free());
    let config = folder.join("config");
    std::fs::create_dir_all(&config).expect("a folder");
    let text = include_str!("../../../configs/cache.toml");
    let text = text
        .replace(
            "namespace = \"larder-access\"",
            &format!("namespace = \"{NAMESPACE}\""),
        )
        .replace(
            "# plain_http_networks = []",
            "plain_http_networks = [\"127.0.0.0/8\"]",
        );
    assert!(
        text.contains(NAMESPACE) && text.contains("\nplain_http"),
        "configs/cache.toml changed"
    );
    std::fs::write(config.join("cache.toml"), text).expect("cache.toml");
    std::fs::create_dir_all(storage).expect("a folder");
    let program = std::env::var_os("LARDER_BENCH_APPLIANCE")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_appliance").into());
    let child = cores::on(Core::Server, || {
        Command::new(program)
            .args(["cache", "--config"])
            .arg(&config)
            .arg("--storage")
            .arg(storage)
            .args(["--listen", &https.to_string()])
            .args(["--listen-http", &http.to_string()])
            .args(["--listen-metrics", &metrics.to_string()])
            .env("CREDENTIALS_DIRECTORY", credentials)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("ours.log")).expect("a log"))
            .spawn()
            .expect("our daemon")
    });
    Server {
        name: "ours".into(),
        is_ours: true,
        https,
        http,
        children: vec![child],
    }
    .wait()
}

/// A journal for the access records of ours, which throws them away.
pub(crate) fn journal() {
    let folder = format!("/run/systemd/journal.{NAMESPACE}");
    let path = format!("{folder}/socket");
    let _ = std::fs::create_dir_all(&folder);
    let _ = std::fs::remove_file(&path);
    match UnixDatagram::bind(&path) {
        Ok(socket) => drop(std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while socket.recv(&mut buffer).is_ok() {}
        })),
        Err(error) => println!("access records of ours go nowhere: {path}: {error}"),
    }
}

/// The nginx of a suite of Debian, and the upstream that it asks. `None`: it was not unpacked.
pub(crate) fn nginx(
    suite: &str,
    folder: &Path,
    files: &Path,
    credentials: &Path,
) -> Option<Server> {
    let home = std::env::var_os("HOME")?;
    let peer = Path::new(&home).join(format!(".cache/larder/peers/nginx-{suite}"));
    if !peer.exists() {
        println!("nginx of {suite}: left out, `.ci/setup bench` unpacks it");
        return None;
    }
    let folder = folder.join(format!("nginx-{suite}"));
    std::fs::create_dir_all(folder.join("puts")).expect("a folder");
    let (https, http) = (free(), free());
    let setting =
        |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let words = [
        ("FOLDER", folder.display().to_string()),
        ("FILES", files.display().to_string()),
        ("PUTS", folder.join("puts").display().to_string()),
        ("CREDENTIALS", credentials.display().to_string()),
        ("HTTPS", https.to_string()),
        ("HTTP", http.to_string()),
        ("SENDFILE", setting("LARDER_BENCH_SENDFILE", "on")),
        ("AIO", setting("LARDER_BENCH_AIO", "off")),
    ];
    let mut text = include_str!("nginx.conf").to_owned();
    for (word, value) in words {
        text = text.replace(&format!("@{word}@"), &value);
    }
    let config = folder.join("nginx.conf");
    std::fs::write(&config, text).expect("nginx.conf");
    let libraries = peer.join("usr/lib/x86_64-linux-gnu");
    let program = || {
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(&libraries)
            .arg(peer.join("usr/sbin/nginx"))
            .stdin(Stdio::null());
        command
    };
    let said = program().arg("-V").output().expect("nginx");
    let said = String::from_utf8_lossy(&said.stderr);
    let first = |name: &str| {
        said.split_once(name)
            .and_then(|(_, rest)| rest.split_whitespace().next())
    };
    let name = format!(
        "nginx {} (OpenSSL {})",
        first("nginx/").unwrap_or("?"),
        first("running with OpenSSL ")
            .or(first("OpenSSL "))
            .unwrap_or("?")
    );
    let socket = folder.join("auth.sock");
    let _ = std::fs::remove_file(&socket);
    let (daemon, upstream) = cores::on(Core::Server, || {
        let upstream = Command::new(std::env::current_exe().expect("this program"))
            .arg(UPSTREAM)
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the upstream");
        let daemon = program()
            .arg("-c")
            .arg(&config)
            .arg("-p")
            .arg(&folder)
            .stderr(std::fs::File::create(folder.join("log")).expect("a log"))
            .spawn()
            .expect("nginx");
        (daemon, upstream)
    });
    let mut upstream = upstream;
    let mut ready = String::new();
    let out = upstream.stdout.take().expect("a pipe");
    BufReader::new(out)
        .read_line(&mut ready)
        .expect("the upstream");
    Some(
        Server {
            name,
            is_ours: false,
            https,
            http,
            children: vec![daemon, upstream],
        }
        .wait(),
    )
}

/// Says yes to everything on a unix socket, over connections that stay.
pub(crate) fn upstream(path: &str) {
    let listener = UnixListener::bind(path).expect("a socket");
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            let mut filled = 0;
            while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
                filled += read;
                if buffer[..filled].ends_with(b"\r\n\r\n") {
                    filled = 0;
                    if stream
                        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                        .is_err()
                    {
                        return;
                    }
                }
            }
        });
    }
}
