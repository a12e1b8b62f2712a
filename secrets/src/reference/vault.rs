//! `vault://<mount>/<path>#<key>`: one key of a secret of a KV version 2 engine.
//!
//! The mount is one part; an engine mounted deeper writes its slashes as `%2F`.

use std::fmt;

use super::part;

/// A key of a KV version 2 secret of Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultReference {
    /// Where the engine is mounted, such as `secret` or `teams/cache`.
    pub mount: String,
    /// Path of the secret below the mount.
    pub path: String,
    /// The key whose value is meant.
    pub key: String,
}

impl VaultReference {
    /// Parses what follows `vault://`.
    pub(super) fn parse(rest: &str) -> Result<Self, String> {
        let (path, key) = rest
            .split_once('#')
            .ok_or("it must end in #key, the key of the secret that is meant")?;
        let (mount, path) = path
            .split_once('/')
            .ok_or("it must have a mount and a path: vault://mount/path#key")?;
        let mount = mount.replace("%2F", "/");
        for (name, whole) in [("mount", mount.as_str()), ("path", path)] {
            for piece in whole.split('/') {
                part(name, piece, " _.-")?;
                if piece == "." || piece == ".." {
                    return Err(format!("its {name} has the part {piece:?}"));
                }
            }
        }
        Ok(Self {
            mount,
            path: path.into(),
            key: part("key", key, "_.-")?,
        })
    }
}

impl fmt::Display for VaultReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mount = self.mount.replace('/', "%2F");
        write!(f, "vault://{mount}/{}#{}", self.path, self.key)
    }
}
