//! Files that several commands read.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where things are; another root than `/` for tests.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// An absolute path below the root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

/// Largest file that is read whole, in bytes; credentials are no larger either.
const LARGEST: u64 = 1024 * 1024;

/// Reads a file of sensible size. `None`: there is none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut bytes = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > LARGEST {
        anyhow::bail!("{} is larger than {LARGEST} bytes", path.display());
    }
    Ok(Some(bytes))
}

/// A credential of this unit. `None`: it was given none, or an empty one, as those are that the
/// fetcher of secrets has no value for.
pub(crate) fn credential(name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) => {
            let value = read(&Path::new(&folder).join(name))?;
            Ok(value.filter(|value| !value.is_empty()))
        }
        None => Ok(None),
    }
}

/// Version of the image, by `/usr/lib/os-release`; outside an image, that of this program.
pub(crate) fn version(root: &Root) -> String {
    let release = std::fs::read_to_string(root.path("/usr/lib/os-release")).unwrap_or_default();
    let version = release
        .lines()
        .find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    let version = version.map(|version| version.trim_matches(['"', '\'']));
    version.unwrap_or(env!("CARGO_PKG_VERSION")).into()
}
