//! Real clients, unmodified: each uploads, forgets what it has, and hits.
//!
//! `.ci/setup test` installs curl and ccache. The others are ignored unless asked for:
//! `make test-clients` installs them and runs all.

mod bazel;
mod ccache;
mod curl;
mod gradle;
mod metro;
mod moon;
mod nx;
mod sccache;
mod turborepo;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::daemon::Daemon;

/// Longest run of a client; a Gradle that starts for the first time takes its time.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where `.ci/setup` puts clients.
fn folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("LARDER_CACHE").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME");
        let cache = cache.unwrap_or_else(|| variable("HOME").unwrap().join(".cache"));
        cache.join("larder")
    });
    cache.join("clients")
}

/// A client that `.ci/setup` put there.
fn installed(path: &str) -> PathBuf {
    let path = folder().join(path);
    assert!(
        path.exists(),
        "{} is missing: make test-clients installs it",
        path.display()
    );
    path
}

/// A service whose clients may come without TLS, because none of them takes its certificate.
async fn daemon() -> Daemon {
    Daemon::start_with(|settings| {
        settings.plain_networks = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await
}

impl Daemon {
    /// The base of a project, without TLS.
    fn base(&self) -> String {
        format!("http://{}/cache/acme/app", self.http)
    }

    /// Hits of a kind of client.
    async fn hits(&self, client: &str) -> f64 {
        let name = "larder_cache_client_download_disk_hits_total";
        self.metric(&format!("{name}{{client=\"{client}\"}}")).await
    }

    /// Objects that a kind of client stored.
    async fn stored(&self, client: &str) -> f64 {
        let name = "larder_cache_client_upload_success_total";
        self.metric(&format!("{name}{{client=\"{client}\"}}")).await
    }
}

/// A program in a folder that is also its home, with nothing of our environment but the path.
fn command(program: impl AsRef<std::ffi::OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("CI", "1")
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a program says, and whether it succeeded.
async fn try_run(command: &mut Command) -> (bool, String) {
    let shown = format!("{command:?}");
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{shown} takes too long"));
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What a program says; it has to succeed.
async fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let (succeeded, text) = try_run(command).await;
    assert!(succeeded, "{shown} failed: {text}");
    text
}

/// Writes files into a folder.
fn files(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// Removes a folder or a file if it is there.
fn remove(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
    let _ = std::fs::remove_file(path);
}

/// The address of a service that is not there any more.
fn nobody() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/cache/acme/app", socket.local_addr().unwrap())
}
