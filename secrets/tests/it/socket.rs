//! The sockets, over real connections: who gets what, and what the bytes are.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrets::fetcher::{Fetcher, Patience};
use secrets::redact::Redactor;
use secrets::refresh::{Client, Current, RefreshError};
use secrets::socket::{Cgroup, CredentialServer, Origins, RefreshServer, unit_of_cgroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::shop::Machine;

const SECRETS: &str = r#"
[secrets.jwt]
reference = "op://v/i/jwt"
consumers = [{ unit = "cache.service" }]
on_change = "reload"
required = true
[secrets.tls]
reference = "op://v/i/tls"
consumers = [{ unit = "cache.service", credential = "tls-key" }]
[secrets.late]
reference = "op://v/i/late"
consumers = [{ unit = "cache.service" }]
required = true
"#;

/// The unit that a test says the peer is of.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Option<String>>>);

impl Said {
    fn is(&self, unit: Option<&str>) {
        *self.0.lock().unwrap() = unit.map(Into::into);
    }
}

impl Origins for Said {
    fn unit(&self, _: &UnixStream) -> Option<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Served {
    machine: Machine,
    fetcher: Fetcher,
    said: Said,
    credential: PathBuf,
    refresh: PathBuf,
}

fn user() -> u32 {
    rustix::process::getuid().as_raw()
}

async fn serve(user: u32) -> Served {
    let mut machine = Machine::new();
    machine.patience = Patience {
        required: Duration::from_millis(300),
        optional: Duration::from_millis(300),
        ..Patience::default()
    };
    machine.shop.set("op://v/i/jwt", "jwt-value");
    let fetcher = machine.boot(SECRETS).await;
    let said = Said::default();
    said.is(Some("cache.service"));
    let credential = machine.folder.path().join("credential.sock");
    let server = CredentialServer {
        fetcher: fetcher.clone(),
        origins: Arc::new(said.clone()),
        user,
        starts: Arc::new(|_| None),
    };
    tokio::spawn(Arc::new(server).run(UnixListener::bind(&credential).unwrap()));
    let refresh = machine.folder.path().join("refresh.sock");
    let server = RefreshServer {
        fetcher: fetcher.clone(),
        origins: Arc::new(said.clone()),
        user,
        watcher: "shipper.service".into(),
    };
    tokio::spawn(Arc::new(server).run(UnixListener::bind(&refresh).unwrap()));
    Served {
        machine,
        fetcher,
        said,
        credential,
        refresh,
    }
}

/// Asks as PID 1's child does: from an abstract name, with nothing to say.
async fn ask(socket: &Path, from: &str) -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Random in systemd: names must differ.
    let number = NUMBER.fetch_add(1, Ordering::SeqCst) | u64::from(std::process::id()) << 32;
    let from = from.replace("RANDOM", &format!("{number:x}"));
    let path = socket.to_owned();
    let stream = tokio::task::spawn_blocking(move || {
        let name = SocketAddr::from_abstract_name(from.as_bytes()).unwrap();
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let bind = rustix::net::SocketAddrUnix::new_abstract_name(name.as_abstract_name().unwrap())
            .unwrap();
        rustix::net::bind(&socket, &bind).unwrap();
        let to = rustix::net::SocketAddrUnix::new(&path).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        std::os::unix::net::UnixStream::from(socket)
    })
    .await
    .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// More than systemd takes (`CREDENTIAL_SIZE_MAX`), so that the unit fails.
const POISON: usize = 1024 * 1024 + 1;

#[tokio::test]
async fn a_unit_gets_its_credential_and_nothing_else() {
    let served = serve(user()).await;
    let at = &served.credential;
    assert_eq!(ask(at, "RANDOM/unit/cache.service/jwt").await, b"jwt-value");
    // Optional and missing: empty.
    assert_eq!(ask(at, "RANDOM/unit/cache.service/tls-key").await, b"");
    // Required and missing: the unit fails. So it does when it asks for what is not its own.
    for name in ["late", "tls", "other"] {
        let bytes = ask(at, &format!("RANDOM/unit/cache.service/{name}")).await;
        assert!(
            bytes.len() == POISON && bytes.iter().all(|byte| *byte == 0),
            "{name}"
        );
    }
    // Not within the unit that the name says, within none, and not as systemd asks.
    assert_eq!(ask(at, "RANDOM/unit/other.service/jwt").await, b"");
    for unit in [Some("evil.service"), None] {
        served.said.is(unit);
        assert_eq!(ask(at, "RANDOM/unit/cache.service/jwt").await, b"");
    }
    served.said.is(Some("cache.service"));
    for name in [
        "RANDOM",
        "RANDOM/unit/cache.service",
        "RANDOM/user/cache.service/jwt",
    ] {
        assert_eq!(ask(at, name).await, b"", "{name}");
    }
    // From no name at all.
    let mut stream = UnixStream::connect(at).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"");
    assert_eq!(ask(at, "RANDOM/unit/cache.service/jwt").await, b"jwt-value");
}

#[tokio::test]
async fn another_user_gets_nothing() {
    let served = serve(user() + 1).await;
    assert_eq!(
        ask(&served.credential, "RANDOM/unit/cache.service/jwt").await,
        b""
    );
    let mut client = Client::connect(&served.refresh).await.unwrap();
    assert!(matches!(
        client.status().await,
        Err(RefreshError::Denied { .. })
    ));
}

#[tokio::test]
async fn a_running_daemon_reads_anew() {
    let served = serve(user()).await;
    let mut client = Client::connect(&served.refresh).await.unwrap();
    assert_eq!(
        ask(&served.credential, "RANDOM/unit/cache.service/jwt").await,
        b"jwt-value"
    );
    let value = async |client: &mut Client, name: &str| match client.get(name).await {
        Ok(Current::Value(value)) => String::from_utf8(value.expose().to_vec()).unwrap(),
        Ok(Current::Absent) => "absent".into(),
        Ok(Current::Unavailable(class)) => class,
        Err(error) => error.to_string(),
    };
    assert_eq!(value(&mut client, "jwt").await, "jwt-value");
    served
        .machine
        .shop
        .set("op://v/i/jwt", "rotated\nwith\0bytes");
    let mut changes = served.fetcher.changes();
    served.fetcher.reload();
    changes.changed().await.unwrap();
    // The same connection goes on.
    assert_eq!(value(&mut client, "jwt").await, "rotated\nwith\0bytes");
    assert_eq!(value(&mut client, "tls-key").await, "absent");
    let denied = value(&mut client, "tls").await;
    assert!(
        denied.contains("get tls is denied to this unit"),
        "{denied}"
    );
    // A process of another unit.
    for unit in [Some("evil.service"), None] {
        served.said.is(unit);
        let mut client = Client::connect(&served.refresh).await.unwrap();
        assert!(value(&mut client, "jwt").await.contains("denied"));
        assert!(matches!(
            {
                client.watch().await.unwrap();
                client.fingerprints().await
            },
            Err(RefreshError::Denied { .. })
        ));
    }
}

#[tokio::test]
async fn the_status_names_everything_but_values() {
    let served = serve(user()).await;
    ask(&served.credential, "RANDOM/unit/cache.service/jwt").await;
    let status = Client::connect(&served.refresh)
        .await
        .unwrap()
        .status()
        .await
        .unwrap();
    let text = serde_json::to_string(&status).unwrap();
    assert!(!text.contains("jwt-value"), "{text}");
    assert_eq!(status, served.fetcher.status());
    assert_eq!(
        status.summary(),
        "1 of 3 secrets fetched; late missing, tls missing"
    );
}

#[tokio::test]
async fn the_shipper_blots_out_what_it_never_sees() {
    let served = serve(user()).await;
    served.said.is(Some("shipper.service"));
    let mut shipper = Client::connect(&served.refresh).await.unwrap();
    shipper.watch().await.unwrap();
    // The first value may come before or after it begins to watch.
    let mut known = shipper.fingerprints().await.unwrap();
    while known.number == 0 {
        known = shipper.fingerprints().await.unwrap();
    }
    let mut redactor = Redactor::default();
    redactor.set(&known.key, &known.fingerprints);
    let line = redactor.value(b"token jwt-value was refused");
    assert_eq!(&*line, b"token [redacted] was refused");

    // A new value is held back until it is known.
    served.machine.shop.set("op://v/i/jwt", "second-value");
    served.fetcher.reload();
    let next = shipper.fingerprints().await.unwrap();
    served.said.is(Some("cache.service"));
    let asking = tokio::spawn({
        let at = served.credential.clone();
        async move { ask(&at, "RANDOM/unit/cache.service/jwt").await }
    });
    shipper.acknowledge(next.number).await.unwrap();
    assert_eq!(asking.await.unwrap(), b"second-value");
    redactor.set(&next.key, &next.fingerprints);
    // Old ones still come up.
    let line = redactor.value(b"jwt-value and second-value");
    assert_eq!(&*line, b"[redacted] and [redacted]");
}

#[tokio::test]
async fn nonsense_ends_the_connection() {
    let served = serve(user()).await;
    for nonsense in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"get\n",
        b"get \n",
        b"acknowledge -1\n",
        b"\xff\xfe\n",
        &[b'x'; 5000],
    ] {
        let mut stream = UnixStream::connect(&served.refresh).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(nonsense).await;
        let _ = stream.shutdown().await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        assert!(bytes.is_empty() || bytes == b"unknown\n", "{bytes:?}");
    }
}

/// The kernel's word on a real peer: this process, whatever unit runs it.
#[tokio::test]
async fn the_control_group_of_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(Cgroup::default().unit(&stream), unit_of_cgroup(&own));
}
