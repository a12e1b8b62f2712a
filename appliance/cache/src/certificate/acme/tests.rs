//! Orders at a real authority: pebble, of Debian 13 (it has ARI), whose DNS is a double.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use instant_acme::RevocationRequest;
use secrets::clock::Manual;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::certificate::Source;

const NAME: &str = "cache.example.test";

struct Pebble {
    child: Child,
    directory: String,
    folder: tempfile::TempDir,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where pebble is: in the path, or where `.ci/setup test` unpacks it.
fn pebble() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let unpacked = Path::new(&home).join(".cache/larder/peers/pebble/usr/bin/pebble");
    match unpacked.is_file() {
        true => unpacked,
        false => "pebble".into(),
    }
}

/// Answers every question for an IPv4 address with 127.0.0.1, others with nothing (RFC 1035, 4.1).
fn dns() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let question = &question[..length];
            let mut end = 12;
            while question[end] != 0 {
                end += question[end] as usize + 1;
            }
            end += 5;
            let is_a = question[end - 4..end] == [0, 1, 0, 1];
            let mut answer = question[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

/// Answers challenges as port 80 does, until the test ends.
async fn port_80(certificates: Arc<Certificates>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let answer = match certificates.challenge(path) {
                Some(text) => format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                ),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

impl Pebble {
    async fn start(http_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::NoCa;
        let own = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = authority.self_signed(&own).unwrap();
        let issuer = rcgen::Issuer::new(authority, own);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(path("ca.pem"), ca.pem()).unwrap();
        std::fs::write(path("cert.pem"), leaf.pem()).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let (listen, management) = (free(), free());
        let config = serde_json::json!({"pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": http_port,
            "tlsPort": 1,
            "certificateValidityPeriod": 90 * 86_400,
        }});
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        let child = Command::new(pebble())
            .arg("-config")
            .arg(path("config.json"))
            .arg("-dnsserver")
            .arg(dns().to_string())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble: `.ci/setup test` installs it");
        let port = listen.port();
        // It is there when it listens.
        while tokio::net::TcpStream::connect(listen).await.is_err() {
            tokio::task::yield_now().await;
        }
        Self {
            child,
            directory: format!("https://localhost:{port}/dir"),
            folder,
        }
    }
}

struct Double;

impl Resolve for Double {
    fn resolve<'a>(
        &'a self,
        _: &'a str,
    ) -> secrets::transport::Pending<'a, Result<Vec<std::net::IpAddr>, String>> {
        Box::pin(async { Ok(vec![[127, 0, 0, 1].into()]) })
    }

    fn is_ours(&self, address: std::net::IpAddr) -> bool {
        address.is_loopback()
    }
}

struct Elsewhere;

impl Resolve for Elsewhere {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> secrets::transport::Pending<'a, Result<Vec<std::net::IpAddr>, String>> {
        Double.resolve(name)
    }

    fn is_ours(&self, _: std::net::IpAddr) -> bool {
        false
    }
}

fn certificates() -> Arc<Certificates> {
    let now = SystemTime::now();
    Arc::new(Certificates::open(&[NAME.into()], None, now).unwrap())
}

fn settings(directory: &str, ca_file: &Path) -> AcmeSettings {
    AcmeSettings {
        directory: directory.into(),
        contact: "ops@example.test".into(),
        ca_file: Some(ca_file.into()),
        check_dns: true,
    }
}

fn clock() -> Arc<Manual> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Arc::new(Manual::at(now.as_secs()))
}

fn served(certificates: &Certificates) -> Vec<u8> {
    let acme = super::super::read(&certificates.acme).unwrap();
    acme.key.cert[0].to_vec()
}

#[tokio::test]
async fn an_authority_gives_renews_and_replaces_what_was_revoked() {
    let certificates = certificates();
    let port = port_80(Arc::clone(&certificates)).await;
    let pebble = Pebble::start(port).await;
    let (state, clock) = (tempfile::tempdir().unwrap(), clock());
    let ca = pebble.folder.path().join("ca.pem");
    let open = |certificates: &Arc<Certificates>| {
        Acme::open(
            settings(&pebble.directory, &ca),
            vec![NAME.into()],
            state.path(),
            clock.clone(),
            Arc::clone(certificates),
            Box::new(Double),
        )
        .unwrap()
    };
    let mut acme = open(&certificates);
    acme.look().await;
    assert_eq!(certificates.trouble(), None);
    assert_eq!(certificates.state().0, Source::Acme);
    let first = served(&certificates);
    // Nothing is due; the authority says when to ask again.
    let pause = acme.look().await;
    assert!(pause > PAUSES.0, "{pause:?}");
    assert_eq!(served(&certificates), first);
    // After a restart the same account and the same certificate.
    let account = std::fs::read(
        state
            .path()
            .join("acme")
            .join(format!("account-{}.json", acme.hash)),
    );
    let again = self::certificates();
    let mut restarted = open(&again);
    restarted.look().await;
    assert_eq!(served(&again), first);
    let file = state
        .path()
        .join("acme")
        .join(format!("account-{}.json", acme.hash));
    assert_eq!(std::fs::read(file).unwrap(), account.unwrap());
    // Revoked early: the authority moves the window, and the next look renews.
    let revoked = CertificateDer::from(first.clone());
    let request = RevocationRequest {
        certificate: &revoked,
        reason: None,
    };
    let account = acme.account().await.unwrap();
    account.revoke(&request).await.unwrap();
    acme.look().await;
    assert_eq!(certificates.trouble(), None);
    let second = served(&certificates);
    assert_ne!(second, first);
    // In time.
    clock.advance(Duration::from_secs(89 * 86_400));
    acme.look().await;
    assert_ne!(served(&certificates), second);
    // Other names are another certificate.
    acme.names = vec![NAME.into(), "other.example.test".into()];
    let third = served(&certificates);
    acme.look().await;
    assert_eq!(certificates.trouble(), None);
    assert_ne!(served(&certificates), third);
}

#[tokio::test]
async fn a_failed_order_says_why_and_waits() {
    let certificates = certificates();
    // Nobody answers challenges there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let pebble = Pebble::start(port).await;
    let (state, clock) = (tempfile::tempdir().unwrap(), clock());
    let ca = pebble.folder.path().join("ca.pem");
    let mut acme = Acme::open(
        settings(&pebble.directory, &ca),
        vec![NAME.into()],
        state.path(),
        clock.clone(),
        Arc::clone(&certificates),
        Box::new(Double),
    )
    .unwrap();
    let pause = acme.look().await;
    assert!(pause >= Duration::from_secs(890), "{pause:?}");
    let trouble = certificates.trouble().unwrap();
    assert!(
        trouble.contains(NAME) && trouble.contains("onnection"),
        "{trouble}"
    );
    assert_eq!(certificates.state().0, Source::SelfSigned);
    // A crash loop orders nothing.
    let mut again = Acme::open(
        settings(&pebble.directory, &ca),
        vec![NAME.into()],
        state.path(),
        clock.clone(),
        Arc::clone(&certificates),
        Box::new(Double),
    )
    .unwrap();
    assert!(again.look().await > Duration::from_secs(800));
}

#[tokio::test]
async fn a_dns_mismatch_is_said_and_nothing_is_ordered() {
    let certificates = certificates();
    let state = tempfile::tempdir().unwrap();
    let ca = state.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    std::fs::write(&ca, own.pem()).unwrap();
    // Whoever asked there would fail otherwise.
    let mut acme = Acme::open(
        settings("https://localhost:1/dir", &ca),
        vec![NAME.into()],
        state.path(),
        clock(),
        Arc::clone(&certificates),
        Box::new(Elsewhere),
    )
    .unwrap();
    assert_eq!(acme.look().await, LOOK_AT_NAMES);
    let trouble = certificates.trouble().unwrap();
    assert!(trouble.contains("leads to 127.0.0.1"), "{trouble}");
    assert!(!state.path().join("acme/attempts").exists());
    acme.resolve = Box::new(Double);
    assert_eq!(acme.look().await, UNREACHABLE);
    assert!(certificates.trouble().unwrap().contains("localhost:1"));
    assert!(!state.path().join("acme/attempts").exists());
}
