//! Sealing to this machine, by `systemd-creds` (systemd-creds(1)): to its TPM2 if it has one, and to
//! the host key on the state partition.
//!
//! The host key alone protects nothing against whoever holds the disk: it lies on it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::error::{Class, FetchError};
use crate::secret::{LARGEST, Secret};
use crate::transport::Pending;

/// A TPM may take seconds, and be busy with others (systemd issue 37189).
const TIMEOUT: Duration = Duration::from_secs(30);

/// Seals and opens; the name is part of what is sealed.
pub trait Sealer: Send + Sync {
    /// Opens what was sealed under this name.
    fn open<'a>(
        &'a self,
        name: &'a str,
        sealed: &'a [u8],
    ) -> Pending<'a, Result<Secret, FetchError>>;

    /// Seals a value under a name.
    fn seal<'a>(
        &'a self,
        name: &'a str,
        value: &'a Secret,
    ) -> Pending<'a, Result<Vec<u8>, FetchError>>;
}

/// The program `systemd-creds`. Values go through pipes, never through arguments or files.
pub struct SystemdCreds {
    program: PathBuf,
    /// Its `--with-key=`.
    key: &'static str,
}

impl SystemdCreds {
    /// The system's, with whatever key it finds best.
    pub fn new() -> Self {
        Self::with("systemd-creds".into(), "auto")
    }

    /// Another program or key.
    pub fn with(program: PathBuf, key: &'static str) -> Self {
        Self { program, key }
    }

    async fn run(
        &self,
        arguments: &[String],
        input: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let fail = |what: String| FetchError::new(Class::Local, what).at(self.program.display());
        let mut child = tokio::process::Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| fail(format!("cannot run it: {error}")))?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let limit = LARGEST + 256 * 1024;
        let work = async {
            let write = async {
                // A program that fails early reads nothing; its status tells.
                if let Some(mut stdin) = stdin {
                    let _ = stdin.write_all(input).await;
                }
            };
            let read = async {
                let mut output = Zeroizing::new(Vec::with_capacity(limit + 1));
                if let Some(stdout) = stdout {
                    stdout
                        .take(limit as u64 + 1)
                        .read_to_end(&mut output)
                        .await?;
                }
                std::io::Result::Ok(output)
            };
            let complain = async {
                let mut text = Vec::new();
                if let Some(stderr) = stderr {
                    let _ = stderr.take(4096).read_to_end(&mut text).await;
                }
                text
            };
            let ((), output, text) = tokio::join!(write, read, complain);
            let status = child.wait().await?;
            std::io::Result::Ok((status, output?, text))
        };
        let (status, output, text) = tokio::time::timeout(TIMEOUT, work)
            .await
            .map_err(|_| fail(format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| fail(format!("it broke off: {error}")))?;
        if !status.success() {
            // Its words are about keys and names.
            let text = String::from_utf8_lossy(&text);
            let text = text.lines().next().unwrap_or_default();
            return Err(fail(format!("{} failed ({status}): {text}", arguments[0])));
        }
        if output.len() > limit {
            return Err(fail(format!("more than {limit} bytes came out")));
        }
        Ok(output)
    }
}

impl Default for SystemdCreds {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealer for SystemdCreds {
    fn open<'a>(
        &'a self,
        name: &'a str,
        sealed: &'a [u8],
    ) -> Pending<'a, Result<Secret, FetchError>> {
        Box::pin(async move {
            let arguments = [
                "decrypt".into(),
                format!("--name={name}"),
                "-".into(),
                "-".into(),
            ];
            Ok(Secret::take(self.run(&arguments, sealed).await?)?)
        })
    }

    fn seal<'a>(
        &'a self,
        name: &'a str,
        value: &'a Secret,
    ) -> Pending<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let arguments = [
                "encrypt".into(),
                format!("--name={name}"),
                format!("--with-key={}", self.key),
                // No PCR by its value: firmware and kernel updates must not lock the machine out. An
                // image with a signed policy over PCR 11 has it where systemd-creds looks, which then
                // binds to that.
                "--tpm2-pcrs=".into(),
                "-".into(),
                "-".into(),
            ];
            let sealed = self.run(&arguments, value.expose()).await?;
            Ok(sealed.to_vec())
        })
    }
}
