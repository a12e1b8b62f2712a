//! What lies on the ESP: boot loader, UKI, and, if the image is for one machine, its name.

use anyhow::Result;
use bytes::Bytes;
use formats::tree::{Kind, Node, Tree};

/// loader.conf(5) of systemd-boot: start the newest good image at once; a key held at power-on
/// shows the menu.
const LOADER_CONF: &str = "timeout 0\neditor no\nauto-firmware no\n";

/// Path of the boot loader that any firmware starts (UEFI 2.10, 3.5.1.1).
const BOOT_LOADER: &str = "/EFI/BOOT/BOOTX64.EFI";

/// Tries that an image has before the boot loader gives it up (Automatic Boot Assessment).
const TRIES: u32 = 3;

/// Path of an image's UKI on the ESP.
pub(super) fn uki_path(id: &str, version: &str) -> String {
    format!("/EFI/Linux/{id}_{version}+{TRIES}.efi")
}

/// The files of an ESP.
pub(super) struct Contents<'a> {
    /// `systemd-bootx64.efi`.
    pub(super) boot_loader: Bytes,
    /// The UKI.
    pub(super) uki: Bytes,
    /// Where the UKI goes, see [`uki_path`].
    pub(super) uki_path: String,
    /// Name of the one machine that the image is for.
    pub(super) host: Option<&'a str>,
}

/// The tree to write as FAT.
pub(super) fn tree(contents: Contents<'_>) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut put = |path: &str, kind: Kind| -> Result<()> {
        tree.insert(path, Node::new(kind, 0o700, "esp"))?;
        Ok(())
    };
    for folder in [
        "/",
        "/EFI",
        "/EFI/BOOT",
        "/EFI/Linux",
        "/larder",
        "/loader",
        "/loader/credentials",
    ] {
        put(folder, Kind::Dir)?;
    }
    put("/loader/loader.conf", Kind::File(LOADER_CONF.into()))?;
    if let Some(host) = contents.host {
        put("/larder/host", Kind::File(format!("{host}\n").into()))?;
    }
    put(&contents.uki_path, Kind::File(contents.uki))?;
    put(BOOT_LOADER, Kind::File(contents.boot_loader))?;
    Ok(tree)
}
