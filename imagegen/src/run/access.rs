//! Keys of a machine that `run` or a test boots, and what they open.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vm::{Running, find_program};

/// Where artifacts live; both handles are names of our own.
const QUERY: &str = "account_handle=larder&project_handle=run";

/// The folder of one machine's keys: an SSH key and a token for the cache. Kept from run to run.
#[derive(Clone, Debug)]
pub struct Access {
    folder: PathBuf,
    public_key: String,
    token: String,
}

impl Access {
    /// Opens `folder`, made if need be, and makes in it what is missing. A machine that starts
    /// anew (`keep` false) has a new host key, so what was known of the old one is forgotten.
    ///
    /// # Errors
    /// A folder that cannot be written, or no `ssh-keygen`.
    pub fn prepare(folder: &Path, keep: bool) -> Result<Access> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        // Paths are printed for pasting, from wherever that is.
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        let token = prepare_token(&folder)?;
        let public_key = prepare_key(&folder)?;
        let access = Access {
            folder,
            public_key,
            token,
        };
        if !keep && access.known_hosts().exists() {
            std::fs::remove_file(access.known_hosts())
                .with_context(|| format!("cannot remove {}", access.known_hosts().display()))?;
        }
        Ok(access)
    }

    /// The public key, one line, as the credential `larder.ssh-key` wants it.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The token of the cache, as the credential `larder.cache-token` wants it.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// File with the private key.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }

    /// File with the header line `Authorization: Bearer …`, for `curl -H @FILE`.
    pub fn header_file(&self) -> PathBuf {
        self.folder.join("authorization")
    }

    /// File with the host keys seen.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// An empty log for the console.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn fresh_log(&self) -> Result<PathBuf> {
        let log = self.folder.join("serial.log");
        std::fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        Ok(log)
    }
}

/// Reads the token, or makes one of 256 bits. The header file follows it.
fn prepare_token(folder: &Path) -> Result<String> {
    let path = folder.join("cache-token");
    let token = match std::fs::read_to_string(&path) {
        Ok(token) => token.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut random = [0; 32];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut random))
                .context("cannot read /dev/urandom")?;
            let token = random
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>();
            write_private(&path, &token)?;
            token
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    ensure!(
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()),
        "{} holds no token; remove it and a new one is made",
        path.display()
    );
    write_private(
        &folder.join("authorization"),
        &format!("Authorization: Bearer {token}\n"),
    )?;
    Ok(token)
}

/// Reads the public key, or makes a pair.
fn prepare_key(folder: &Path) -> Result<String> {
    let private = folder.join("id_ed25519");
    let public = folder.join("id_ed25519.pub");
    if !private.exists() || !public.exists() {
        // ssh-keygen asks before it overwrites half a pair.
        for leftover in [&private, &public] {
            let _ = std::fs::remove_file(leftover);
        }
        let mut keygen = Command::new(find_program("ssh-keygen", "openssh-client")?);
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "larder-run", "-f"])
            .arg(&private);
        let output = keygen
            .stdin(Stdio::null())
            .output()
            .context("cannot start ssh-keygen")?;
        if !output.status.success() {
            bail!(
                "ssh-keygen made no key: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    let key = std::fs::read_to_string(&public)
        .with_context(|| format!("cannot read {}", public.display()))?;
    Ok(key.trim().to_owned())
}

fn write_private(path: &Path, content: &str) -> Result<()> {
    let partial = path.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A booted machine as seen through its forwarded ports.
#[derive(Clone, Debug)]
pub struct Guest {
    access: Access,
    https: u16,
    http: u16,
    ssh: u16,
}

impl Guest {
    /// The guest behind the forwards of `running` to 443, 80 and 22.
    ///
    /// # Errors
    /// If one of them is not forwarded.
    pub fn new(access: &Access, running: &Running) -> Result<Guest> {
        let port = |guest| {
            running
                .port(guest)
                .with_context(|| format!("no forward to the guest's port {guest}"))
        };
        Ok(Guest {
            access: access.clone(),
            https: port(443)?,
            http: port(80)?,
            ssh: port(22)?,
        })
    }

    /// Address of the cache; `path` starts with a slash.
    pub fn https_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.https)
    }

    /// Address of the plain listener; `path` starts with a slash.
    pub fn http_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    /// Address of an artifact.
    pub fn artifact_url(&self, id: &str) -> String {
        self.https_url(&format!("/api/cache/cas/{id}?{QUERY}"))
    }

    /// `curl` with the options that each call needs: quiet but for errors, a limit of time, and no
    /// check of the certificate, which is self-signed.
    ///
    /// # Errors
    /// If curl is not installed.
    pub fn curl(&self) -> Result<Command> {
        let mut curl = Command::new(find_program("curl", "curl")?);
        // A proxy of this machine is not for its own loopback.
        curl.args(["-q", "-sS", "-k", "--noproxy", "*", "--max-time", "60"]);
        curl.stdin(Stdio::null());
        Ok(curl)
    }

    /// `ssh` into the machine as user `larder`, without asking anything.
    ///
    /// # Errors
    /// If ssh is not installed.
    pub fn ssh(&self) -> Result<Command> {
        let mut ssh = Command::new(find_program("ssh", "openssh-client")?);
        ssh.args(self.ssh_options())
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=60"]);
        ssh.arg("larder@127.0.0.1").stdin(Stdio::null());
        Ok(ssh)
    }

    /// The options of `ssh` that lead to this machine and leave the user's own files alone.
    pub fn ssh_options(&self) -> Vec<String> {
        // ssh expands % in paths, and splits the list of known hosts' files at spaces.
        let path = |path: PathBuf| path.display().to_string().replace('%', "%%");
        let known = path(self.access.known_hosts());
        let options = ["-F", "none", "-i", &path(self.access.key_file()), "-p"].map(str::to_owned);
        let mut options = Vec::from(options);
        options.push(self.ssh.to_string());
        for option in [
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=accept-new",
            &format!("UserKnownHostsFile=\"{known}\""),
        ] {
            options.extend(["-o", option].map(str::to_owned));
        }
        options
    }

    /// Starts asking for `/up`.
    pub fn up_probe(&self) -> UpProbe<'_> {
        UpProbe {
            guest: self,
            asking: None,
            next: Instant::now(),
        }
    }

    /// Puts an artifact, gets it back, and logs in; says what it did.
    pub(crate) fn check(&self) -> Result<()> {
        let body = self.access.folder.join("artifact");
        let mut content = vec![0; 300_000];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut content))
            .context("cannot read /dev/urandom")?;
        std::fs::write(&body, &content)
            .with_context(|| format!("cannot write {}", body.display()))?;
        let url = self.artifact_url(&format!("run-check-{}", std::process::id()));

        let mut put = self.curl()?;
        put.arg("--fail")
            .arg("-H")
            .arg(format!("@{}", self.access.header_file().display()));
        put.args([
            "-H",
            "Content-Type: application/octet-stream",
            "--data-binary",
        ]);
        put.arg(format!("@{}", body.display())).arg(&url);
        let output = put.output().context("cannot start curl")?;
        ensure!(
            output.status.success(),
            "the artifact was not taken: {}",
            words(&output)
        );
        println!("put an artifact of {} bytes", content.len());

        let mut get = self.curl()?;
        get.arg("--fail")
            .arg("-H")
            .arg(format!("@{}", self.access.header_file().display()));
        let output = get.arg(&url).output().context("cannot start curl")?;
        ensure!(
            output.status.success(),
            "the artifact was not given: {}",
            words(&output)
        );
        ensure!(
            output.stdout == content,
            "what came back is not what was put"
        );
        println!("got the same bytes back");

        let output = self
            .ssh()?
            .arg("hostname")
            .output()
            .context("cannot start ssh")?;
        ensure!(
            output.status.success(),
            "no login by SSH: {}",
            words(&output)
        );
        println!(
            "logged in to {}",
            String::from_utf8_lossy(&output.stdout).trim()
        );
        Ok(())
    }

    /// Lines ready to paste.
    pub fn lines(&self) -> String {
        let header = shell_word(&format!("@{}", self.access.header_file().display()));
        let url = self.artifact_url("hello");
        let ssh: Vec<String> = self
            .ssh_options()
            .iter()
            .map(|option| shell_word(option))
            .collect();
        format!(
            "# is it up?\n\
             curl -k {up}\n\
             # put and get an artifact (the token is in {file})\n\
             echo hello | curl -k -H {header} -H 'Content-Type: application/octet-stream' \
             --data-binary @- '{url}'\n\
             curl -k -H {header} '{url}'\n\
             # look inside\n\
             ssh {ssh} larder@127.0.0.1\n",
            up = self.https_url("/up"),
            file = self.access.folder.join("cache-token").display(),
            ssh = ssh.join(" "),
        )
    }
}

/// Asks for `/up` over HTTPS again and again, without holding up who waits for it.
#[derive(Debug)]
pub struct UpProbe<'a> {
    guest: &'a Guest,
    asking: Option<Child>,
    next: Instant,
}

impl UpProbe<'_> {
    /// Whether an answer with status 200 has come. Does not wait.
    ///
    /// # Errors
    /// If curl cannot be started.
    pub fn answered(&mut self) -> Result<bool> {
        if let Some(mut curl) = self.asking.take() {
            if curl.try_wait().context("cannot wait for curl")?.is_none() {
                self.asking = Some(curl);
                return Ok(false);
            }
            let output = curl
                .wait_with_output()
                .context("cannot read what curl says")?;
            // Each question costs the guest a handshake.
            self.next = Instant::now() + Duration::from_millis(500);
            return Ok(output.stdout == b"200");
        }
        if Instant::now() >= self.next {
            let mut curl = self.guest.curl()?;
            curl.args(["--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"]);
            curl.arg(self.guest.https_url("/up"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            self.asking = Some(curl.spawn().context("cannot start curl")?);
        }
        Ok(false)
    }
}

impl Drop for UpProbe<'_> {
    fn drop(&mut self) {
        if let Some(mut curl) = self.asking.take() {
            let _ = curl.kill();
            let _ = curl.wait();
        }
    }
}

fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    format!("{} ({})", said.trim(), output.status)
}

/// Quotes what a shell would not take as one word.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_and_token_are_made_once_and_private() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a b/run");
        let first = Access::prepare(&folder, false).unwrap();
        assert!(first.public_key().starts_with("ssh-ed25519 "));
        assert_eq!(first.token().len(), 64);
        let header = std::fs::read_to_string(first.header_file()).unwrap();
        assert_eq!(header, format!("Authorization: Bearer {}\n", first.token()));
        for file in [
            first.key_file(),
            first.header_file(),
            folder.join("cache-token"),
        ] {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        std::fs::write(first.known_hosts(), "old").unwrap();
        let kept = Access::prepare(&folder, true).unwrap();
        assert_eq!(
            (kept.public_key(), kept.token()),
            (first.public_key(), first.token())
        );
        assert!(kept.known_hosts().exists());
        let anew = Access::prepare(&folder, false).unwrap();
        assert_eq!(anew.token(), first.token());
        assert!(!anew.known_hosts().exists());
        std::fs::write(folder.join("cache-token"), "two words").unwrap();
        let error = Access::prepare(&folder, true).unwrap_err().to_string();
        assert!(error.contains("holds no token"), "{error}");
    }

    #[test]
    fn lines_are_ready_to_paste() {
        let access = Access {
            folder: "/home/me/lar der/build/run/dev".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            token: "canary".into(),
        };
        let guest = Guest {
            access,
            https: 8443,
            http: 8080,
            ssh: 2222,
        };
        let lines = guest.lines();
        assert!(!lines.contains("canary"), "the token is shown");
        insta::assert_snapshot!(lines);
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
