//! TLS and proxies, against servers of a test's own making.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Listens with a fresh certificate for `localhost`; answers every connection with `answer` once.
fn tls_server(answer: &'static str) -> (u16, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(&config)) else {
                return;
            };
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let mut request = [0; 4096];
            if tls.read(&mut request).is_ok() {
                let _ = tls.write_all(answer.as_bytes());
            }
        }
    });
    (port, certificate)
}

/// A proxy that answers CONNECT with `status` and then only passes bytes on; with its log.
fn tunnel_proxy(to: u16, status: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::clone(&log);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = [0; 1024];
            let n = client.read(&mut head).expect("a request");
            seen.lock()
                .expect("no panic")
                .push(String::from_utf8_lossy(&head[..n]).into_owned());
            write!(client, "HTTP/1.1 {status}\r\n\r\n").expect("an answer");
            let Ok(server) = std::net::TcpStream::connect(("127.0.0.1", to)) else {
                continue;
            };
            let (mut a, mut b) = (
                client.try_clone().expect("a socket"),
                server.try_clone().expect("a socket"),
            );
            std::thread::spawn(move || std::io::copy(&mut a, &mut b));
            let (mut server, mut client) = (server, client);
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    (port, log)
}

/// A client that trusts one certificate.
fn client(
    proxies: Proxies,
    trusted: Option<rustls::pki_types::CertificateDer<'static>>,
) -> Arc<Client> {
    let client = Client::new(Timeouts::default(), proxies);
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(trusted);
    assert!(client.tls.set(connector(roots)).is_ok(), "not set yet");
    Arc::new(client)
}

fn get(client: Arc<Client>, url: &str) -> Result<String, Failure> {
    let url = Url::parse(url).expect("valid");
    crate::download::runtime()
        .expect("a runtime")
        .block_on(async {
            let mut connections = Connections::new(client);
            let mut response = connections.get(&url, 0).await?;
            let mut out = Vec::new();
            while let Some(bytes) = response.chunk().await? {
                out.extend_from_slice(&bytes);
            }
            Ok(String::from_utf8(out).expect("UTF-8"))
        })
}

#[test]
fn https_is_spoken_to_who_is_trusted_only() {
    let (port, certificate) = tls_server(HELLO);
    let url = format!("https://localhost:{port}/x");
    let answer = get(client(Proxies::none(), Some(certificate.clone())), &url);
    assert_eq!(answer.expect("trusted"), "hello");
    let (_, other) = tls_server("");
    let failure = get(client(Proxies::none(), Some(other)), &url).expect_err("not trusted");
    assert!(
        matches!(&failure, Failure::Transient(text) if text.contains("TLS")),
        "{failure:?}"
    );
    let wrong_name = format!("https://127.0.0.1:{port}/x");
    let failure =
        get(client(Proxies::none(), Some(certificate)), &wrong_name).expect_err("another name");
    assert!(
        matches!(&failure, Failure::Transient(text) if text.contains("TLS")),
        "{failure:?}"
    );
}

#[test]
fn redirects_never_leave_tls() {
    let (port, certificate) = tls_server(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n",
    );
    let url = format!("https://localhost:{port}/x");
    let failure = get(client(Proxies::none(), Some(certificate)), &url).expect_err("a downgrade");
    assert!(
        matches!(&failure, Failure::Fatal(Error::BadUrl { .. })),
        "{failure:?}"
    );
}

#[test]
fn https_goes_through_a_tunnel_of_the_proxy() {
    let (port, certificate) = tls_server(HELLO);
    let (proxy, log) = tunnel_proxy(port, "200 Connection established");
    let settings = format!("Acquire::https::Proxy \"http://me:pw@127.0.0.1:{proxy}\";");
    let proxies = Proxies::from_settings(&settings, |_| None);
    let url = format!("https://localhost:{port}/x");
    assert_eq!(
        get(client(proxies, Some(certificate.clone())), &url).expect("an answer"),
        "hello"
    );
    let log = log.lock().expect("no panic");
    assert!(
        log[0].starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")),
        "{log:?}"
    );
    assert!(
        log[0].contains("Proxy-Authorization: Basic bWU6cHc="),
        "{log:?}"
    );

    let (proxy, _) = tunnel_proxy(port, "407 Proxy Authentication Required");
    let settings = format!("Acquire::https::Proxy \"http://127.0.0.1:{proxy}\";");
    let failure = get(
        client(
            Proxies::from_settings(&settings, |_| None),
            Some(certificate),
        ),
        &url,
    );
    let failure = failure.expect_err("no tunnel");
    assert!(
        matches!(&failure, Failure::Transient(text) if text.contains("407")),
        "{failure:?}"
    );
}
