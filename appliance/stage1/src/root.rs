//! The kernel's file systems and the root.

use std::path::Path;

use crate::SYSROOT;
use crate::console::Fatal;

/// What the system needs mounted, in order: source and type, target, options. They move into the
/// root, so they have the options that systemd gives them.
const KERNEL: &[(&str, &str, &str)] = &[
    ("proc", "/proc", "nosuid,nodev,noexec"),
    ("sysfs", "/sys", "nosuid,nodev,noexec"),
    ("devtmpfs", "/dev", "nosuid,mode=0755"),
    (
        "tmpfs",
        "/run",
        "nosuid,nodev,mode=0755,size=20%,nr_inodes=800k",
    ),
];

/// Mounts them in the initramfs.
pub(crate) fn mount_kernel_file_systems() -> Result<(), Fatal> {
    for (kind, target, options) in KERNEL {
        make_folder(target)?;
        disk::mount::mount(kind, Path::new(target), kind, options)?;
    }
    make_folder("/run/larder")
}

/// Mounts the sealed root.
pub(crate) fn mount(device: &str) -> Result<(), Fatal> {
    make_folder(SYSROOT)?;
    disk::mount::mount(device, Path::new(SYSROOT), "ext4", "ro,noload")?;
    Ok(())
}

/// Moves the kernel's file systems into the root and leaves links behind, so that from here on
/// `/dev`, `/proc`, `/sys` and `/run` are the same for stage1 and for programs of the root.
pub(crate) fn move_kernel_file_systems() -> Result<(), Fatal> {
    for (_, target, _) in KERNEL {
        let moved = format!("{SYSROOT}{target}");
        disk::mount::move_to(Path::new(target), Path::new(&moved))?;
        // What is left there is the initramfs's own: the kernel puts a console node into /dev.
        std::fs::remove_dir_all(target)
            .and_then(|()| std::os::unix::fs::symlink(&moved, target))
            .map_err(|error| Fatal::new(format!("cannot link {target}: {error}")))?;
    }
    Ok(())
}

fn make_folder(path: &str) -> Result<(), Fatal> {
    std::fs::create_dir_all(path)
        .map_err(|error| Fatal::new(format!("cannot make {path}: {error}")))
}
