//! The fetcher of secrets as a process of its own, against a double of 1Password Connect.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secret_doubles::Certificate;
use secret_doubles::connect::Connect;
use secrets::fetcher::Status;
use secrets::refresh::Client;

/// Requests at once; an hour gives 60 more.
const BURST: usize = 12;

/// A folder with manifest, token and state.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(connect: &Connect, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["state", "sockets", "credentials"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("ca.pem"), connect.server.authority()).unwrap();
        let token_file = at("credentials/larder.secrets-token");
        std::fs::write(&token_file, token).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&token_file, mode).unwrap();
        let manifest = format!(
            "[providers.onepassword]\nkind = \"connect\"\nurl = \"{}\"\nca = \"{}\"\n\
             poll = \"60s\"\nburst = {BURST}\nrequests_per_hour = 60\n\
             [secrets.jwt]\nreference = \"op://v/i/jwt\"\n\
             consumers = [{{ unit = \"cache.service\" }}]\n",
            connect.server.url(),
            at("ca.pem").display()
        );
        std::fs::write(at("manifest.toml"), manifest).unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> Running {
        let child = Command::new(env!("CARGO_BIN_EXE_appliance"))
            .args(["secrets", "--clock", "0", "--manifest"])
            .arg(self.at("manifest.toml"))
            .arg("--state")
            .arg(self.at("state"))
            .arg("--sockets")
            .arg(self.at("sockets"))
            .env("CREDENTIALS_DIRECTORY", self.at("credentials"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Running { child }
    }
}

/// The process; it is killed (SIGKILL) with this value.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the provider was asked, or could not be.
async fn settled(socket: &Path) -> Status {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let asked = async { Client::connect(socket).await?.status().await };
        match asked.await {
            Ok(status) if status.secrets[0].state != "waiting" => return status,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_burns_no_quota() {
    let connect = Connect::start(Certificate::Good);
    let machine = Machine::new(&connect, "a wrong token");
    let socket = machine.at("sockets/refresh.sock");
    let began = Instant::now();
    let mut last = String::new();
    for _ in 0..2 * BURST {
        let running = machine.start();
        let status = settled(&socket).await;
        assert_eq!(status.secrets[0].state, "missing");
        last = status.secrets[0].message.clone().unwrap();
        drop(running);
        // Of a process that was killed.
        std::fs::remove_file(&socket).unwrap();
    }
    let requests = connect.server.requests().len();
    // One a minute comes in.
    let most = BURST + began.elapsed().as_secs() as usize / 60 + 1;
    assert!((BURST..=most).contains(&requests), "{requests} requests");
    assert!(last.contains("is used up (budget)"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_everybody_may_read_is_refused() {
    let connect = Connect::start(Certificate::Good);
    let machine = Machine::new(&connect, &connect.token);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(machine.at("credentials/larder.secrets-token"), mode).unwrap();
    let _running = machine.start();
    let status = settled(&machine.at("sockets/refresh.sock")).await;
    let message = status.secrets[0].message.clone().unwrap();
    assert!(message.contains("everybody may read"), "{message}");
    assert!(connect.server.requests().is_empty());
}
