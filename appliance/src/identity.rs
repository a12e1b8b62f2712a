//! `appliance identity`: which machine of the fleet this one is.
//!
//! One image serves the whole fleet; the credential `larder.host` says which entry of the fleet
//! file is meant. Everybody else reads the result, [`Identity`].

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use config::ssh::PublicKey;
use config::{Environment, Fleet, Host, Network};
use serde::{Deserialize, Serialize};

use crate::announce::announce;
use crate::files::{self, Root};

/// Where the result is.
const PATH: &str = "/run/larder/identity.json";
/// The name, for everybody who reads `/etc/hostname` (a link to here).
const HOSTNAME: &str = "/run/larder/hostname";
/// Keys that a credential authorizes, one file a user.
const KEYS: &str = "/run/larder/authorized_keys";
/// User that the credential authorizes.
const OPERATOR: &str = "larder";
/// Where networkd looks first at what a boot decides.
const NETWORK: &str = "/run/systemd/network";

/// Learn which machine of the fleet this one is, and set it up as that.
///
/// The credential larder.host names an entry of fleet.toml. Sets the host name, writes the entry's
/// network files below /run/systemd/network and what others need to know to
/// /run/larder/identity.json. Without the credential, or with a name that the fleet does not have,
/// every console says so and the machine takes part in the network by DHCP.
///
/// The credential larder.ssh-key authorizes public keys for user larder.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/larder")]
    config: std::path::PathBuf,
}

/// Which machine this one is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Identity {
    /// Version of this format.
    pub(crate) version: u32,
    /// Whether it is known.
    pub(crate) status: Status,
    /// Its name in the fleet.
    pub(crate) host: Option<String>,
    /// Its name with the domain.
    pub(crate) fqdn: Option<String>,
    /// All its names, `fqdn` first.
    pub(crate) names: Vec<String>,
    /// What it serves.
    pub(crate) environment: Option<Environment>,
    /// Its region.
    pub(crate) region: Option<String>,
    /// Its second disk for `/cas`, if it has one.
    pub(crate) cas_disk: Option<String>,
    /// What the operator should know.
    pub(crate) messages: Vec<String>,
}

/// Whether the identity is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It is one of the fleet.
    Ok,
    /// Nobody said.
    #[default]
    None,
    /// The fleet does not know the name, or cannot be read.
    Unknown,
}

impl Identity {
    /// Reads what `appliance identity` found.
    ///
    /// # Errors
    ///
    /// It is missing or makes no sense.
    pub(crate) fn read(root: &Root) -> Result<Self> {
        let path = root.path(PATH);
        let text = files::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    fn find(credential: Option<&[u8]>, fleet: Result<&Fleet>) -> (Self, Option<Host>) {
        let mut identity = Self {
            version: 1,
            ..Self::default()
        };
        let Some(name) = credential.map(|name| String::from_utf8_lossy(name)) else {
            identity.messages.push(
                "this machine does not know which one it is: there is no credential larder.host \
                 (imagegen flash --host NAME, or the file larder/host on the ESP)"
                    .into(),
            );
            return (identity, None);
        };
        identity.status = Status::Unknown;
        let name = name.trim();
        let fleet = match fleet {
            Ok(fleet) => fleet,
            Err(error) => {
                identity
                    .messages
                    .push(format!("the fleet is not known: {error:#}"));
                return (identity, None);
            }
        };
        let found = fleet.hosts.iter().find_map(|(host, entry)| {
            let fqdn = format!("{host}.{}", entry.domain.as_ref().unwrap_or(&fleet.domain));
            (name == host || name == fqdn).then_some((host, fqdn, entry))
        });
        let Some((host, fqdn, entry)) = found else {
            let known: Vec<_> = fleet.hosts.keys().map(String::as_str).collect();
            identity.messages.push(format!(
                "the fleet has no host {name:?}, which the credential larder.host names; it has {}",
                known.join(", ")
            ));
            return (identity, None);
        };
        identity.status = Status::Ok;
        identity.host = Some(host.clone());
        identity.names = vec![fqdn.clone()];
        identity
            .names
            .extend(entry.names.iter().filter(|name| **name != fqdn).cloned());
        identity.fqdn = Some(fqdn);
        identity.environment = Some(entry.environment);
        identity.region = Some(entry.region.clone());
        identity.cas_disk.clone_from(&entry.disks.cas);
        (identity, Some(entry.clone()))
    }
}

/// Runs `appliance identity`.
///
/// # Errors
///
/// Something could not be written. An identity that is not known is no error: it was said.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = Root::default();
    let identity = establish(&root, &arguments.config, &credential)?;
    if let Some(fqdn) = &identity.fqdn {
        log::info!("this machine is {fqdn}");
        rustix::system::sethostname(fqdn.as_bytes())
            .with_context(|| format!("cannot set the host name {fqdn}"))?;
    }
    for message in &identity.messages {
        announce(message);
    }
    Ok(())
}

/// A credential that cannot be read is as good as none, after a word.
fn credential(name: &str) -> Option<Vec<u8>> {
    files::credential(name).unwrap_or_else(|error| {
        log::error!("credential {name}: {error:#}");
        None
    })
}

/// Finds out and writes everything but the host name of the kernel.
fn establish(
    root: &Root,
    config: &Path,
    credential: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<Identity> {
    let fleet = fleet(&root.path(&config.to_string_lossy()));
    let (mut identity, host) = Identity::find(
        credential("larder.host").as_deref(),
        fleet.as_ref().map_err(copy),
    );
    let network = host
        .as_ref()
        .map_or_else(Network::default, |host| host.network.clone());
    folder(&root.path("/run/larder"))?;
    folder(&root.path(NETWORK))?;
    for (name, content) in config::render::network_files(&network) {
        write(&root.path(NETWORK).join(name), content.as_bytes())?;
    }
    if let Some(fqdn) = &identity.fqdn {
        write(&root.path(HOSTNAME), format!("{fqdn}\n").as_bytes())?;
    }
    if let Some(keys) = credential("larder.ssh-key") {
        let (keys, refused) = keys_of(&String::from_utf8_lossy(&keys));
        identity.messages.extend(refused);
        folder(&root.path(KEYS))?;
        write(&root.path(KEYS).join(OPERATOR), keys.as_bytes())?;
    }
    // Last: who reads it finds everything else in place.
    write(&root.path(PATH), &serde_json::to_vec_pretty(&identity)?)?;
    Ok(identity)
}

fn copy(error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn fleet(config: &Path) -> Result<Fleet> {
    Ok(Fleet::load(config)?)
}

/// The keys among the lines, and what is wrong with the others.
fn keys_of(text: &str) -> (String, Vec<String>) {
    let (mut keys, mut refused) = (String::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match PublicKey::parse(line) {
            Ok(key) => {
                keys.push_str(key.line());
                keys.push('\n');
            }
            Err(reason) => refused.push(format!(
                "line {} of the credential larder.ssh-key is no public key: {reason}",
                number + 1
            )),
        }
    }
    if keys.is_empty() && refused.is_empty() {
        refused.push("the credential larder.ssh-key is empty".into());
    }
    (keys, refused)
}

/// Makes a folder that everybody may read, whatever the umask is.
fn folder(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path);
    made.and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    Ok(disk::atomic::write(path, content, 0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sshkey::tests::KEY;

    const FLEET: &str = r#"
        domain = "example.org"
        [hosts.one]
        environment = "production"
        region = "eu"
        names = ["cache.example.net", "one.example.org"]
        disks.cas = "/dev/disk/by-id/second"
        [hosts.two]
        environment = "canary"
        region = "us"
        domain = "example.com"
        network.files."10-x.network" = "[Match]\nName=x\n"
    "#;

    struct Machine {
        folder: tempfile::TempDir,
    }

    impl Machine {
        fn new(fleet: Option<&str>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            if let Some(fleet) = fleet {
                std::fs::create_dir_all(folder.path().join("etc/larder")).unwrap();
                std::fs::write(folder.path().join("etc/larder/fleet.toml"), fleet).unwrap();
            }
            Self { folder }
        }

        fn establish(&self, host: Option<&str>, keys: Option<&str>) -> Identity {
            let root = Root::new(self.folder.path());
            let credential = |name: &str| {
                let value = if name == "larder.host" { host } else { keys };
                value.map(|value| value.as_bytes().to_vec())
            };
            let identity = establish(&root, Path::new("/etc/larder"), &credential).unwrap();
            assert_eq!(Identity::read(&root).unwrap(), identity);
            identity
        }

        fn read(&self, path: &str) -> Option<String> {
            std::fs::read_to_string(self.folder.path().join(path)).ok()
        }
    }

    #[test]
    fn one_of_the_fleet() {
        let machine = Machine::new(Some(FLEET));
        let one = machine.establish(Some("one\n"), None);
        assert_eq!(one.status, Status::Ok);
        assert_eq!(one.names, ["one.example.org", "cache.example.net"]);
        assert_eq!(one.cas_disk.as_deref(), Some("/dev/disk/by-id/second"));
        assert_eq!(one.messages, [""; 0]);
        assert_eq!(
            machine.read("run/larder/hostname").unwrap(),
            "one.example.org\n"
        );
        let text = machine.read("run/larder/identity.json").unwrap();
        let text: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "version": 1, "status": "ok", "host": "one", "fqdn": "one.example.org",
            "names": ["one.example.org", "cache.example.net"], "environment": "production",
            "region": "eu", "cas_disk": "/dev/disk/by-id/second", "messages": [],
        });
        assert_eq!(text, expected);
        let two = machine.establish(Some("two.example.com"), None);
        assert_eq!(two.host.as_deref(), Some("two"));
        assert_eq!(two.cas_disk, None);
        let network = machine.read("run/systemd/network/10-x.network").unwrap();
        assert_eq!(network, "[Match]\nName=x\n");
    }

    #[test]
    fn without_an_identity_it_goes_on_and_says_so() {
        let machine = Machine::new(Some(FLEET));
        let nobody = machine.establish(None, None);
        assert_eq!((nobody.status, nobody.names.len()), (Status::None, 0));
        assert!(nobody.messages[0].contains("does not know which one it is"));
        let stranger = machine.establish(Some("one.example.com\u{1b}[2J"), None);
        assert_eq!(stranger.status, Status::Unknown);
        let message = &stranger.messages[0];
        assert!(
            message.contains(r#""one.example.com\u{1b}[2J""#),
            "{message}"
        );
        assert!(message.contains("it has one, two"), "{message}");
        assert_eq!(machine.read("run/larder/hostname"), None);
        for broken in [None, Some("hosts = 1")] {
            let machine = Machine::new(broken);
            let identity = machine.establish(Some("one"), Some(KEY));
            assert_eq!(identity.status, Status::Unknown);
            let message = &identity.messages[0];
            assert!(message.contains("etc/larder/fleet.toml"), "{message}");
            // Reachable all the same.
            assert!(machine.read("run/larder/authorized_keys/larder").is_some());
        }
    }

    #[test]
    fn keys_are_authorized_line_by_line() {
        let machine = Machine::new(Some(FLEET));
        let keys = format!("# mine\n\n{KEY}  \nssh-ed25519 AAAA\r\n{KEY} again");
        let identity = machine.establish(None, Some(&keys));
        let path = "run/larder/authorized_keys/larder";
        assert_eq!(machine.read(path).unwrap(), format!("{KEY}\n{KEY} again\n"));
        assert!(identity.messages[1].starts_with("line 4 of the credential larder.ssh-key"));
        let mode = |path: &str| {
            let metadata = machine.folder.path().join(path).metadata().unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!(mode(path), 0o644);
        assert_eq!(mode("run/larder/authorized_keys"), 0o755);
        let identity = machine.establish(None, Some(" \n"));
        assert!(identity.messages[1].ends_with("larder.ssh-key is empty"));
        assert_eq!(machine.read(path).unwrap(), "");
    }
}
