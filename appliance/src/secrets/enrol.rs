//! `appliance secrets enrol`: gives a machine its token.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use secrets::Secret;
use secrets::credentials::{SEALED, SYSTEM};
use secrets::manifest::TOKEN;
use secrets::seal::{Sealer, SystemdCreds};
use zeroize::Zeroizing;

/// Largest token, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Seal a token to this machine and keep it on the ESP.
///
/// The token comes on standard input, never as an argument:
///
///     op read op://infra/larder/token | ssh HOST sudo appliance secrets enrol
///
/// It is sealed to the machine's TPM2 if it has one. Without one it is sealed to a key on the state
/// partition, which protects nothing against whoever holds the disk.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Name of the credential
    #[arg(long, value_name = "NAME", default_value = TOKEN)]
    credential: String,
    /// Where the ESP is mounted
    #[arg(long, value_name = "DIR", default_value = "/boot")]
    esp: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let name = &arguments.credential;
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        bail!("{name:?} is no name of a credential: lower-case letters, digits and - _ . only");
    }
    let token = read()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sealed = runtime.block_on(SystemdCreds::new().seal(name, &token))?;
    let folder = arguments.esp.join("loader/credentials");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}; is the ESP mounted?", folder.display()))?;
    keep(&folder.join(format!("{name}.cred")), &sealed)?;
    // Where the next boot will put it.
    let now = Path::new(SEALED[0]);
    std::fs::create_dir_all(now).with_context(|| format!("cannot make {}", now.display()))?;
    keep(&now.join(name), &sealed)?;
    eprintln!("sealed to this machine as {name}, for this and later boots");
    if Path::new(SYSTEM).join(name).exists() {
        eprintln!("note: the hypervisor or firmware gives {name} too, and that one is used");
    }
    let status = Command::new("systemctl")
        .args(["try-reload-or-restart", "larder-secrets.service"])
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("the token is kept, but larder-secrets.service could not be told: restart it"),
    }
}

/// The token on standard input, without the line break at its end.
fn read() -> anyhow::Result<Secret> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        bail!("the token is expected on standard input, from a pipe, so that it shows nowhere");
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 1));
    stdin
        .lock()
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    if bytes.len() as u64 > LARGEST {
        bail!("standard input is longer than {LARGEST} bytes, so it is no token");
    }
    let token = bytes.trim_ascii();
    if token.is_empty() {
        bail!("standard input is empty: did the command before fail?");
    }
    Ok(Secret::copy_of(token)?)
}

fn keep(path: &Path, sealed: &[u8]) -> anyhow::Result<()> {
    secrets::files::replace(path, sealed)
        .with_context(|| format!("cannot write {}", path.display()))
}
