//! Mounting, with options as people write them.

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::Error;

/// Mount options, split into what mount(2) takes as flags and what the file system reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// The rest, separated by commas.
    pub data: String,
}

impl Options {
    /// Parses `noatime,commit=30`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut options = Self {
            flags: MountFlags::empty(),
            data: String::new(),
        };
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let flag = match word {
                "ro" => MountFlags::RDONLY,
                "nosuid" => MountFlags::NOSUID,
                "nodev" => MountFlags::NODEV,
                "noexec" => MountFlags::NOEXEC,
                "sync" => MountFlags::SYNCHRONOUS,
                "dirsync" => MountFlags::DIRSYNC,
                "noatime" => MountFlags::NOATIME,
                "nodiratime" => MountFlags::NODIRATIME,
                "relatime" => MountFlags::RELATIME,
                "strictatime" => MountFlags::STRICTATIME,
                "lazytime" => MountFlags::LAZYTIME,
                // What is so anyway, and what only fstab knows.
                "rw" | "suid" | "dev" | "exec" | "async" | "defaults" | "auto" | "nofail" => {
                    continue;
                }
                _ => {
                    if !options.data.is_empty() {
                        options.data.push(',');
                    }
                    options.data.push_str(word);
                    continue;
                }
            };
            options.flags |= flag;
        }
        options
    }
}

/// Mounts `device` at `target`.
///
/// # Errors
///
/// The kernel refused.
pub fn mount(device: &str, target: &Path, kind: &str, options: &str) -> Result<(), Error> {
    let failed = |cause: std::io::Error| Error::Mount {
        device: device.into(),
        target: target.into(),
        options: format!("{kind}, {options}"),
        cause,
    };
    let parsed = Options::parse(options);
    let data = std::ffi::CString::new(parsed.data).map_err(|error| failed(error.into()))?;
    rustix::mount::mount(device, target, kind, parsed.flags, data.as_c_str())
        .map_err(|error| failed(error.into()))
}

/// Mounts a folder or a file a second time at `target`.
///
/// # Errors
///
/// The kernel refused.
pub fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    rustix::mount::mount_bind(source, target).map_err(|error| Error::Mount {
        device: source.display().to_string(),
        target: target.into(),
        options: "bind".into(),
        cause: error.into(),
    })
}

/// Moves a mount to `target`.
///
/// # Errors
///
/// The kernel refused.
pub fn move_to(source: &Path, target: &Path) -> Result<(), Error> {
    rustix::mount::mount_move(source, target).map_err(|error| Error::Mount {
        device: source.display().to_string(),
        target: target.into(),
        options: "move".into(),
        cause: error.into(),
    })
}

/// Takes the topmost mount at `target` away.
///
/// # Errors
///
/// It is in use, or nothing is mounted there.
pub fn unmount(target: &Path) -> Result<(), Error> {
    rustix::mount::unmount(target, UnmountFlags::empty())
        .map_err(|error| Error::path(target, "unmount")(error.into()))
}

/// What is mounted at `target` according to the text of `/proc/self/mountinfo`: the source of the
/// topmost mount.
#[must_use]
pub fn source_of(mountinfo: &str, target: &str) -> Option<String> {
    mountinfo.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (before.split(' ').nth(4)? == target).then(|| after.split(' ').nth(1).map(Into::into))?
    })
}

/// Whether something is mounted at `target`.
///
/// # Errors
///
/// `/proc` is not there.
pub fn is_mounted(target: &str) -> Result<bool, Error> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read_to_string(path).map_err(Error::path(path, "read"))?;
    Ok(source_of(&text, target).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split() {
        let options = Options::parse("noatime,nodiratime,commit=60,lazytime, errors=remount-ro,rw");
        assert_eq!(
            options.flags,
            MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::LAZYTIME
        );
        assert_eq!(options.data, "commit=60,errors=remount-ro");
        assert_eq!(
            Options::parse(""),
            Options {
                flags: MountFlags::empty(),
                data: String::new()
            }
        );
    }

    #[test]
    fn the_topmost_mount_counts() {
        let text = "22 1 254:0 / / ro - ext4 /dev/dm-0 ro\n\
                    30 22 0:20 / /var rw,nosuid shared:1 - tmpfs tmpfs rw\n\
                    31 22 254:7 / /var rw,noatime shared:1 - ext4 /dev/vda7 rw\n";
        assert_eq!(source_of(text, "/var").as_deref(), Some("/dev/vda7"));
        assert_eq!(source_of(text, "/cas"), None);
        assert!(is_mounted("/proc").unwrap());
    }
}
