//! Debian binary packages (deb(5)), read from memory: an `ar` file with `debian-binary`,
//! `control.tar.*` and `data.tar.*`, compressed by xz or Zstandard, or not at all.
//!
//! Nothing is written anywhere and no maintainer script is run. Files that the caller refuses are
//! decoded past, without a buffer of their own.

mod ar;
mod tarball;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::inflate::{Format, Inflate, InflateError};
use crate::tree::{Kind, Node};

/// What stops the unpacking of a package from eating the machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole decompressed archive.
    pub unpacked: u64,
    /// Bytes of one file.
    pub file: u64,
}

impl Default for Limits {
    /// 2 GiB a package (the generic kernel has 160 MiB), 512 MiB a file.
    fn default() -> Self {
        Self {
            unpacked: 2 << 30,
            file: 512 << 20,
        }
    }
}

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads for one package; more than one only helps with large ones of several xz blocks.
    pub threads: u32,
    /// Size limits.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            limits: Limits::default(),
        }
    }
}

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// A folder.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Another name of a file of the same package.
    Hardlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// What is known of an entry before its data are decoded.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Absolute, normalised path as in [`crate::tree`]: `/usr/bin/env`.
    pub path: &'a str,
    /// What it is.
    pub kind: EntryType,
    /// Bytes of data; 0 unless it is a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// The target of a symbolic link as written, the absolute path of a hard link's, or empty.
    pub link: &'a str,
}

/// An unpacked package.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Files of the control archive by name (`control`, `md5sums`, `conffiles`, `postinst`, …).
    pub control: BTreeMap<String, Bytes>,
    /// The kept entries in the archive's order (a folder before what lies in it), ready for
    /// [`crate::tree::Tree::add`].
    pub files: Vec<(String, Node)>,
}

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// Not an `ar` file.
    #[error("this is not a Debian package: it does not begin with `!<arch>`")]
    NotAr,
    /// The `ar` file is damaged.
    #[error("damaged package at byte {offset}: {what}")]
    Ar {
        /// Offset in the package.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Not version 2 of the format.
    #[error("the package's format version is {0:?}; only 2.x is known")]
    Version(String),
    /// A member that every package has is missing.
    #[error("the package has no {0}")]
    NoMember(&'static str),
    /// A compression that trixie's packages do not use.
    #[error(
        "{0} is compressed in a way that is not supported (only .xz, .zst and plain are); \
         repack it with `dpkg-deb -R` and `dpkg-deb -Zxz -b`"
    )]
    Compression(String),
    /// Decompression failed.
    #[error("cannot decompress {member}: {source}")]
    Inflate {
        /// The member of the package.
        member: String,
        /// Why.
        source: InflateError,
    },
    /// The tar archive is damaged or holds what no package holds.
    #[error("{member}, decompressed, byte {offset}: {what}")]
    Tar {
        /// The member of the package.
        member: String,
        /// Offset of the entry's header in the decompressed archive.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Larger than the limits allow.
    #[error("{member}, decompressed, byte {offset}: more than the allowed {limit} bytes")]
    TooBig {
        /// The member of the package.
        member: String,
        /// Offset of the entry's header in the decompressed archive.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

/// Limits of the control archive: md5sums of the largest packages have about a MiB.
const CONTROL_LIMITS: Limits = Limits {
    unpacked: 32 << 20,
    file: 16 << 20,
};

/// Unpacks a package: its control files, and the entries of its data that `keep` says yes to,
/// labelled with `origin` ([`Node::origin`]).
///
/// A hard link's target is not looked for: when `keep` refuses the target, it is the caller who
/// must not want the link.
///
/// # Errors
/// [`DebError`].
pub fn unpack(
    deb: &[u8],
    origin: &str,
    options: &Options,
    keep: &dyn Fn(&Entry<'_>) -> bool,
) -> Result<Package, DebError> {
    let (control, data) = parts(deb)?;
    let control = read_control(&control)?;
    let mut files = Vec::new();
    tarball::read(
        data.name,
        Inflate::new(format_of(&data)?, data.data, options.threads)
            .map_err(|source| inflate_error(&data, source))?,
        origin,
        &options.limits,
        keep,
        &mut |path, node| files.push((path, node)),
    )?;
    Ok(Package { control, files })
}

/// Reads only the control files, which is quick.
///
/// # Errors
/// [`DebError`].
pub fn control(deb: &[u8]) -> Result<BTreeMap<String, Bytes>, DebError> {
    read_control(&parts(deb)?.0)
}

impl Package {
    /// A field of the `control` file (`Package`, `Version`, `Architecture`), first line only.
    pub fn field(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(self.control.get("control")?).ok()?;
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The paths of configuration files (`conffiles`), without those marked `remove-on-upgrade`.
    pub fn conffiles(&self) -> Vec<&str> {
        self.control
            .get("conffiles")
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('/'))
            .collect()
    }
}

/// The control and data members of a package.
fn parts(deb: &[u8]) -> Result<(ar::Member<'_>, ar::Member<'_>), DebError> {
    let members = ar::members(deb)?;
    let version = members
        .first()
        .filter(|member| member.name == "debian-binary")
        .ok_or(DebError::NoMember("debian-binary"))?;
    if !version.data.starts_with(b"2.") {
        let text = String::from_utf8_lossy(&version.data[..version.data.len().min(16)]);
        return Err(DebError::Version(text.trim_end().to_string()));
    }
    let find = |name: &'static str| {
        members
            .iter()
            .find(|member| {
                member
                    .name
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            .copied()
            .ok_or(DebError::NoMember(name))
    };
    Ok((find("control.tar")?, find("data.tar")?))
}

fn format_of(member: &ar::Member<'_>) -> Result<Format, DebError> {
    match member.name.split_once(".tar").map(|(_, suffix)| suffix) {
        Some("") => Ok(Format::Plain),
        Some(".xz") => Ok(Format::Xz),
        Some(".zst") => Ok(Format::Zstd),
        _ => Err(DebError::Compression(member.name.to_string())),
    }
}

fn inflate_error(member: &ar::Member<'_>, source: InflateError) -> DebError {
    DebError::Inflate {
        member: member.name.to_string(),
        source,
    }
}

fn read_control(member: &ar::Member<'_>) -> Result<BTreeMap<String, Bytes>, DebError> {
    let mut control = BTreeMap::new();
    tarball::read(
        member.name,
        Inflate::new(format_of(member)?, member.data, 1)
            .map_err(|source| inflate_error(member, source))?,
        "",
        &CONTROL_LIMITS,
        &|entry| entry.kind == EntryType::File,
        &mut |path, node| {
            if let Kind::File(data) = node.kind {
                control.insert(path.trim_start_matches('/').to_string(), data);
            }
        },
    )?;
    Ok(control)
}

/// For fuzzing: any bytes are a package or a typed error.
pub fn fuzz(data: &[u8]) {
    let options = Options {
        threads: 1,
        limits: Limits {
            unpacked: 1 << 20,
            file: 1 << 20,
        },
    };
    if let Ok(package) = unpack(data, "fuzz", &options, &|_| true) {
        for (path, _) in &package.files {
            assert!(path.starts_with('/') && !path.split('/').any(|part| part == ".."));
        }
        package.conffiles();
        package.field("Package");
    }
}
