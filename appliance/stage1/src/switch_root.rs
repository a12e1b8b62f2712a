//! The last step: the root becomes `/`, systemd becomes PID 1.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::SYSROOT;
use crate::console::Fatal;

/// What is tried in order.
const INIT: &[&str] = &["/usr/lib/systemd/systemd", "/sbin/init"];

/// Frees the initramfs, changes the root, starts systemd.
pub(crate) fn exec() -> Result<Infallible, Fatal> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Fatal::new(format!("cannot {what}: {error}"))
    };
    std::env::set_current_dir(SYSROOT).map_err(failed("enter the root"))?;
    empty(Path::new("/"));
    rustix::mount::mount_move(".", "/").map_err(|error| failed("move the root")(error.into()))?;
    rustix::process::chroot(".").map_err(|error| failed("change the root")(error.into()))?;
    std::env::set_current_dir("/").map_err(failed("enter the new root"))?;
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for program in INIT {
        last = Command::new(program)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .env(
                "TERM",
                std::env::var_os("TERM").unwrap_or_else(|| "linux".into()),
            )
            .exec();
    }
    Err(failed("start systemd")(last))
}

/// Removes everything on the initramfs; its memory is free then. Mounted folders stay.
fn empty(folder: &Path) {
    let Ok(device) = std::fs::symlink_metadata(folder).map(|metadata| metadata.dev()) else {
        return;
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.dev() != device => {}
            Ok(metadata) if metadata.is_dir() => {
                empty(&path);
                // Not empty if something is mounted in it.
                let _ = std::fs::remove_dir(&path);
            }
            Ok(_) => {
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => {}
        }
    }
}
