//! `imagegen secrets`: gives a machine its token.
//!
//! The token never touches this machine's disk, a command line or an environment: it goes from a pipe
//! or a file of the user's to SSH's standard input. It is sealed on the machine that it is for.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use secrets::credentials::read_private;
use secrets::manifest::TOKEN;
use zeroize::Zeroizing;

use crate::fleet;

/// Largest token, in bytes; as `appliance secrets enrol` takes it.
const LARGEST: u64 = 64 * 1024;

/// Give machines what they fetch their secrets with.
#[derive(Debug, Args)]
pub struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

/// Commands of `imagegen secrets`.
#[derive(Debug, Subcommand)]
enum SecretsCommand {
    Seal(SealArgs),
}

/// Seal a token to a machine, over SSH.
///
/// Asks the machine to seal the token to itself (to its TPM2 if it has one, else to a key on its own
/// disk, which protects nothing against whoever holds the disk) and to keep it on its ESP, for this
/// and later boots. The token comes from standard input, a file that only its owner may read, or a
/// command such as:
///
///   imagegen secrets seal --host eu1 --token-command 'op read op://infra/larder/token'
///
/// It is never an argument and is never written here.
#[derive(Args, Clone, Debug)]
#[command(verbatim_doc_comment)]
pub struct SealArgs {
    /// Which host of the fleet
    #[arg(long, value_name = "NAME")]
    pub host: String,

    /// Folder of the configuration, for the host's name
    #[arg(long, default_value = "configs", value_name = "DIR")]
    pub configs: PathBuf,

    /// Where the machine is reached, instead of its name in the fleet
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,

    /// The program that reaches it, with its options
    #[arg(long, default_value = "ssh", value_name = "COMMAND")]
    pub ssh: String,

    /// User to log in as, who may use sudo
    #[arg(long, default_value = "larder", value_name = "USER")]
    pub user: String,

    /// Shell command that prints the token
    #[arg(long, value_name = "COMMAND", conflicts_with = "token_file")]
    pub token_command: Option<String>,

    /// File with the token; others than its owner and group must not be able to read it
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Name of the credential
    #[arg(long, value_name = "NAME", default_value = TOKEN)]
    pub credential: String,
}

/// Runs `imagegen secrets`.
///
/// # Errors
/// No token, an unknown host, a machine that cannot be reached or does not seal.
pub fn run(args: SecretsArgs) -> Result<ExitCode> {
    match args.command {
        SecretsCommand::Seal(args) => seal(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// Seals a token to a machine.
///
/// # Errors
/// As [`run`].
pub fn seal(args: &SealArgs) -> Result<()> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    let name = &args.credential;
    if name.is_empty() || name.starts_with(['.', '-']) || !name.bytes().all(plain) {
        bail!("{name:?} is no name of a credential: lower-case letters, digits and - _ . only");
    }
    let address = match &args.address {
        Some(address) => address.clone(),
        None => fleet::name(&args.configs, &args.host)?,
    };
    if address.starts_with('-') {
        bail!("{address:?} is no address");
    }
    let token = token(args)?;
    let mut words = args.ssh.split_ascii_whitespace();
    let program = words.next().context("--ssh names no program")?;
    let mut child = Command::new(program)
        .args(words)
        .args(["-l", &args.user, "--", &address])
        // Without a shell's special characters: the name was checked above.
        .arg(format!("sudo appliance secrets enrol --credential {name}"))
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program} (--ssh)"))?;
    let sent = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(&token),
        None => Ok(()),
    };
    let status = child.wait().with_context(|| program.to_owned())?;
    if !status.success() {
        bail!(
            "{} ({address}) did not take the token: {program} ended with {status}",
            args.host
        );
    }
    sent.with_context(|| format!("cannot send the token to {address}"))
}

/// The token without white space around it.
fn token(args: &SealArgs) -> Result<Zeroizing<Vec<u8>>> {
    let (bytes, source) = if let Some(command) = &args.token_command {
        (of_command(command)?, "the command".to_owned())
    } else if let Some(path) = &args.token_file {
        (of_file(path)?, path.display().to_string())
    } else {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            bail!(
                "there is no token: give it on standard input from a pipe, by --token-command or by \
                 --token-file"
            );
        }
        (
            limited(stdin.lock(), "standard input")?,
            "standard input".to_owned(),
        )
    };
    let token = bytes.trim_ascii();
    if token.is_empty() {
        bail!("{source} gave no token");
    }
    Ok(Zeroizing::new(token.to_vec()))
}

fn of_command(command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start sh for --token-command")?;
    let stdout = child.stdout.take().context("sh has no standard output")?;
    let bytes = limited(stdout, "the output of --token-command");
    let status = child.wait().context("--token-command")?;
    let bytes = bytes?;
    if !status.success() {
        bail!("--token-command ended with {status}; nothing was sent");
    }
    Ok(bytes)
}

/// What a private file holds.
pub(crate) fn of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    read_private(path)?.with_context(|| format!("there is no file {}", path.display()))
}

fn limited(from: impl Read, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 1));
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {what}"))?;
    if bytes.len() as u64 > LARGEST {
        bail!("{what} is longer than {LARGEST} bytes, so it is no token");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        seal: SealArgs,
    }

    /// `ssh` that keeps what it is told in files.
    fn ssh(folder: &Path, status: i32) -> String {
        let path = folder.join("ssh");
        let folder = folder.display();
        let text = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >{folder}/args\ncat >{folder}/token\nexit {status}\n"
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        format!("{} -p 2222", path.display())
    }

    fn run(folder: &Path, status: i32, more: &[&str]) -> Result<()> {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let ssh = ssh(folder, status);
        let mut words = vec!["x", "--host", "dev", "--ssh", &ssh, "--configs"];
        words.push(configs.to_str().unwrap());
        words.extend(more);
        seal(&Cli::parse_from(words).seal)
    }

    #[test]
    fn the_token_goes_by_standard_input_only() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), 0, &["--token-command", "echo ops_canary"]).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("token"), "ops_canary");
        let expected = "-p\n2222\n-l\nlarder\n--\ndev.larder.internal\n\
                        sudo appliance secrets enrol --credential larder.secrets-token\n";
        assert_eq!(read("args"), expected);
        let file = folder.path().join("file");
        std::fs::write(&file, "ops_other\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let more = ["--token-file", file.to_str().unwrap(), "--address", "::1"];
        run(folder.path(), 0, &more).unwrap();
        assert_eq!(read("token"), "ops_other");
        assert!(read("args").contains("\n::1\n"));
    }

    #[test]
    fn what_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let words =
            |status, more: &[&str]| format!("{:#}", run(folder.path(), status, more).unwrap_err());
        let file = folder.path().join("open");
        std::fs::write(&file, "ops_x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = words(0, &["--token-file", file.to_str().unwrap()]);
        assert!(said.contains("everybody may read"), "{said}");
        for (more, expected) in [
            (
                &["--token-file", "/nowhere/token"][..],
                "there is no file /nowhere/token",
            ),
            (
                &["--token-command", "echo half; exit 3"],
                "nothing was sent",
            ),
            (&["--token-command", "true"], "gave no token"),
            (
                &["--token-command", "head -c 100000 /dev/zero"],
                "longer than 65536 bytes",
            ),
            (&["--credential", "x; reboot"], "no name of a credential"),
            (&["--address=-oProxyCommand=x"], "no address"),
        ] {
            let said = words(0, more);
            assert!(said.contains(expected), "{more:?}: {said}");
        }
        assert!(!folder.path().join("token").exists(), "it was sent");
        let said = words(1, &["--token-command", "echo ops_x"]);
        assert!(
            said.contains("did not take the token") && !said.contains("ops_x"),
            "{said}"
        );
    }
}
