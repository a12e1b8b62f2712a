//! Who is at the other end of a socket.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use tokio::net::UnixStream;

use crate::manifest::Consumer;

/// Tells which unit a peer belongs to.
pub trait Origins: Send + Sync {
    /// The unit, by the peer's control group. `None`: unknown, or the peer is gone.
    fn unit(&self, stream: &UnixStream) -> Option<String>;
}

/// By pidfd of the peer (`SO_PEERPIDFD`, Linux 6.5), so that its number cannot become another's, and
/// `/proc/PID/cgroup` (cgroups(7)).
#[derive(Clone, Debug)]
pub struct Cgroup {
    proc: PathBuf,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
        }
    }
}

impl Origins for Cgroup {
    fn unit(&self, stream: &UnixStream) -> Option<String> {
        let pidfd = peer_pidfd(stream).ok()?;
        let pid = self.pid(&pidfd)?;
        let cgroup = std::fs::read_to_string(self.proc.join(format!("{pid}/cgroup"))).ok()?;
        // Still the same process: what was read is of it.
        if self.pid(&pidfd)? != pid {
            return None;
        }
        unit_of_cgroup(&cgroup)
    }
}

impl Cgroup {
    /// The process of a pidfd. `None`: it has ended.
    fn pid(&self, pidfd: &OwnedFd) -> Option<u32> {
        let path = self
            .proc
            .join(format!("self/fdinfo/{}", pidfd.as_fd().as_raw_fd()));
        let info = std::fs::read_to_string(path).ok()?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        // -1: it was reaped; 0: it is of another PID namespace.
        pid.trim().parse().ok().filter(|pid| *pid > 0)
    }
}

fn peer_pidfd(stream: &UnixStream) -> std::io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to a variable of this type and to its size.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            std::ptr::from_mut(&mut fd).cast(),
            &mut length,
        )
    };
    if result != 0 || fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The unit of a control group: the first part below the slices. What a unit makes below its own
/// group does not count, so it cannot take another's name.
pub fn unit_of_cgroup(file: &str) -> Option<String> {
    let path = file.lines().find_map(|line| line.strip_prefix("0::"))?;
    let part = path
        .split('/')
        .find(|part| !part.is_empty() && !part.ends_with(".slice"))?;
    // systemd escapes names that the kernel would take for its own.
    let part = part.strip_prefix('_').unwrap_or(part);
    part.contains('.').then(|| part.to_owned())
}

/// The abstract name from which systemd asks for a credential: `RANDOM/unit/UNIT/CREDENTIAL`
/// (systemd.exec(5), LoadCredential=).
pub(crate) fn parse_name(name: &[u8]) -> Option<Consumer> {
    let name = std::str::from_utf8(name).ok()?;
    let mut parts = name.splitn(4, '/');
    let random = parts.next()?;
    let hex = !random.is_empty() && random.bytes().all(|c| c.is_ascii_hexdigit());
    if !hex || parts.next()? != "unit" {
        return None;
    }
    let (unit, credential) = (parts.next()?, parts.next()?);
    if unit.is_empty() || credential.is_empty() || credential.contains('/') {
        return None;
    }
    Some(Consumer {
        unit: unit.into(),
        credential: credential.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_control_groups() {
        for (file, unit) in [
            (
                "0::/system.slice/larder-cache.service\n",
                Some("larder-cache.service"),
            ),
            (
                "0::/system.slice/system-x.slice/x@1.service\n",
                Some("x@1.service"),
            ),
            (
                "0::/system.slice/evil.service/larder-cache.service\n",
                Some("evil.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/larder-cache.service\n",
                Some("user@1000.service"),
            ),
            (
                "1:name=systemd:/x\n0::/system.slice/a.service/.control\n",
                Some("a.service"),
            ),
            ("0::/init.scope\n", Some("init.scope")),
            ("0::/system.slice/_cpu.service\n", Some("cpu.service")),
            ("0::/\n", None),
            ("0::/system.slice\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of_cgroup(file).as_deref(), unit, "{file}");
        }
    }

    #[test]
    fn names_that_systemd_binds() {
        let consumer = parse_name(b"a1b2c3d4/unit/larder-cache.service/jwt-secret").unwrap();
        assert_eq!(consumer.unit, "larder-cache.service");
        assert_eq!(consumer.credential, "jwt-secret");
        for name in [
            &b""[..],
            b"a1/unit/x.service",
            b"a1/unit//jwt",
            b"a1/unit/x.service/",
            b"a1/user/x.service/jwt",
            b"/unit/x.service/jwt",
            b"xyz/unit/x.service/jwt",
            b"a1/unit/x.service/a/b",
            b"a1/unit/x.service/\xff",
        ] {
            assert_eq!(parse_name(name), None, "{name:?}");
        }
    }
}
