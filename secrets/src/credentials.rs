//! The system credentials of the machine (systemd.system-credentials(7)): plain ones that PID 1
//! imported, and sealed ones that the boot left for us.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Class, FetchError};
use crate::seal::Sealer;
use crate::secret::{LARGEST, Secret};
use crate::transport::Pending;

/// Where systemd puts plain system credentials; readable by root only.
pub const SYSTEM: &str = "/run/credentials/@system";
/// Where stage1 and PID 1 put sealed ones.
pub const SEALED: [&str; 2] = [
    "/run/larder/credentials.encrypted",
    "/run/credentials/@encrypted",
];

/// Gives system credentials.
pub trait Credentials: Send + Sync {
    /// Reads one. Class `Missing`: there is none by that name.
    fn read<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Secret, FetchError>>;
}

/// Credentials in folders.
pub struct Folders {
    /// Folders of plain ones; the first that has the name wins.
    pub plain: Vec<PathBuf>,
    /// Folders of sealed ones, looked into afterwards.
    pub sealed: Vec<PathBuf>,
    /// Opens sealed ones.
    pub sealer: Arc<dyn Sealer>,
}

impl Folders {
    /// Whether there is a credential by this name, readable or not.
    pub fn has(&self, name: &str) -> bool {
        let mut folders = self.plain.iter().chain(&self.sealed);
        folders.any(|folder| folder.join(name).exists())
    }
}

impl Credentials for Folders {
    fn read<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Secret, FetchError>> {
        Box::pin(async move {
            for folder in &self.plain {
                if let Some(value) = read_private(&folder.join(name))? {
                    return Ok(Secret::take(value)?);
                }
            }
            for folder in &self.sealed {
                let path = folder.join(name);
                if let Some(sealed) = read(&path)? {
                    let opened = self.sealer.open(name, &sealed).await;
                    return opened.map_err(|error| error.at(path.display()));
                }
            }
            let what = format!(
                "there is no system credential {name}: give it by SMBIOS, fw_cfg or the ESP, or \
                 with `appliance secrets enrol`"
            );
            Err(FetchError::new(Class::Missing, what))
        })
    }
}

fn local(path: &Path, what: impl Into<String>) -> FetchError {
    FetchError::new(Class::Local, what).at(path.display())
}

/// Reads a file that only its owner and group may read. `None`: there is none.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FetchError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.mode() & 0o007 != 0 => Err(local(
            path,
            "everybody may read or write this file, so it is no secret any more: replace the \
             value, and keep the file with chmod 0600",
        )),
        _ => read(path),
    }
}

/// Reads a file of the size of a credential at most. `None`: there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FetchError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(local(path, format!("cannot open it: {error}"))),
    };
    // Room for all at once: a vector that grows leaves copies behind. Sealed ones are longer.
    let limit = LARGEST + 128 * 1024;
    let size = file
        .metadata()
        .map_or(limit as u64, |metadata| metadata.len());
    let mut bytes = Zeroizing::new(Vec::with_capacity((size as usize).min(limit) + 1));
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| local(path, format!("cannot read it: {error}")))?;
    if bytes.len() > limit {
        return Err(local(path, format!("it is larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}
