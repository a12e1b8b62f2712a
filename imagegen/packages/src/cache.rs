//! The download cache: files by their SHA-256, shared by all checkouts of a user.
//!
//! `sha256/ab/abcd….deb` are whole and verified; `sha256/ab/abcd….part` are what an interrupted
//! download left, which the next one goes on with. A file gets its final name only after its hash
//! was checked and it was synced, so its name and size are proof enough for a build.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::Digest as _;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// A folder of verified downloads.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in this folder, which is made when it is first written to.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `$LARDER_CACHE`, `$XDG_CACHE_HOME/larder` or `~/.cache/larder`, the first that is set.
    pub fn of_user() -> Result<Self> {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let root = set("LARDER_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("larder")))
            .or_else(|| set("HOME").map(|p| p.join(".cache/larder")));
        root.map(Self::at).ok_or_else(|| {
            Error::Request(
                "neither LARDER_CACHE nor HOME is set: say where downloads are kept".to_owned(),
            )
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file is or will be; `extension` without the dot.
    pub fn path(&self, digest: &Digest, extension: &str) -> PathBuf {
        let hex = digest.to_string();
        self.root
            .join("sha256")
            .join(&hex[..2])
            .join(format!("{hex}.{extension}"))
    }

    /// The path of a file that is there with the right size, and if `rehash` the right contents.
    /// A wrong one is removed.
    pub(crate) fn find(
        &self,
        digest: &Digest,
        size: u64,
        extension: &str,
        rehash: bool,
    ) -> Result<Option<PathBuf>> {
        let path = self.path(digest, extension);
        let right = match fs::metadata(&path) {
            Ok(found) => {
                found.is_file() && found.len() == size && (!rehash || hash_file(&path)? == *digest)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, "cannot look at")(e)),
        };
        if right {
            return Ok(Some(path));
        }
        fs::remove_file(&path).map_err(Error::io(&path, "damaged, and cannot be removed"))?;
        Ok(None)
    }
}

/// SHA-256 of a file.
pub(crate) fn hash_file(path: &Path) -> Result<Digest> {
    let mut file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file
            .read(&mut buffer)
            .map_err(Error::io(path, "cannot read"))?
        {
            0 => return Ok(Digest(hasher.finalize().into())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// What [`Part::open`] finds.
pub(crate) enum Opened {
    /// A file to go on with, ours alone.
    Part(Part),
    /// Another process finished the download.
    Whole,
    /// Another process is downloading it now.
    Busy,
}

/// A download that is not whole yet: its file, locked against other processes, and the hash of
/// what it holds.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    hasher: sha2::Sha256,
    len: u64,
}

impl Part {
    /// Opens or creates the `.part` file beside `target` and hashes what is there.
    pub(crate) fn open(target: &Path, size: u64) -> Result<Opened> {
        let path = target.with_extension("part");
        let folder = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::io(folder, "cannot create the folder"))?;
        let file = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(Error::io(&path, "cannot open"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Opened::Busy),
                Err(e) => return Err(Error::io(&path, "cannot lock")(e.into())),
            }
            // Whoever had the lock may have renamed the file away.
            let ours = file
                .metadata()
                .map_err(Error::io(&path, "cannot look at"))?;
            match fs::metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => break file,
                _ => {}
            }
        };
        if fs::metadata(target).is_ok_and(|m| m.len() == size) {
            let _ = fs::remove_file(&path);
            return Ok(Opened::Whole);
        }
        let mut part = Self {
            path,
            file,
            hasher: sha2::Sha256::new(),
            len: 0,
        };
        let mut buffer = vec![0; 1 << 18];
        loop {
            match part
                .file
                .read(&mut buffer)
                .map_err(Error::io(&part.path, "cannot read"))?
            {
                0 => break,
                n => {
                    part.hasher.update(&buffer[..n]);
                    part.len += n as u64;
                }
            }
            if part.len > size {
                part.reset()?;
                break;
            }
        }
        Ok(Opened::Part(part))
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8], remaining: u64) -> Result<()> {
        use std::io::Write as _;
        self.file
            .write_all(bytes)
            .map_err(|e| full_or(&self.path, "cannot write", remaining, e))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Starts from nothing.
    pub(crate) fn reset(&mut self) -> Result<()> {
        use std::io::Seek as _;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(Error::io(&self.path, "cannot empty"))?;
        self.hasher = sha2::Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// The hash of what is there.
    pub(crate) fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    /// Syncs and gives the file its final name.
    pub(crate) fn finish(self, target: &Path) -> Result<()> {
        let folder = target.parent().unwrap_or(Path::new("."));
        self.file
            .sync_all()
            .map_err(|e| full_or(&self.path, "cannot sync", 0, e))?;
        fs::rename(&self.path, target).map_err(Error::io(target, "cannot rename to"))?;
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(Error::io(folder, "cannot sync the folder"))
    }

    /// Removes the file.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells a full disk from other errors.
fn full_or(path: &Path, action: &'static str, needed: u64, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => Error::DiskFull {
            path: path.to_owned(),
            needed,
            available: available(path.parent().unwrap_or(path)),
        },
        _ => Error::Io {
            path: path.to_owned(),
            action,
            source: error,
        },
    }
}

/// Bytes that are free for us under a folder; its nearest ancestor if it does not exist.
pub(crate) fn available(folder: &Path) -> u64 {
    folder
        .ancestors()
        .find_map(|f| {
            rustix::fs::statvfs(if f.as_os_str().is_empty() {
                Path::new(".")
            } else {
                f
            })
            .ok()
        })
        .map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let of = |errno: Errno| {
            let path = Path::new("/tmp/larder/x.part");
            full_or(path, "cannot write", 1000, std::io::Error::from(errno)).to_string()
        };
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let text = of(errno);
            assert!(
                text.contains("/tmp/larder/x.part: the disk is full: 1000 more bytes"),
                "{text}"
            );
            assert!(
                !text.contains(&u64::MAX.to_string()),
                "the nearest folder is asked: {text}"
            );
        }
        assert!(of(Errno::IO).contains("cannot write"), "{}", of(Errno::IO));
    }
}
