//! Maintainer scripts that nobody has read: what they would do is missing from the image.

use super::unpack::Package;

/// Packages whose `postinst` was read: its effects are declared in this folder or in `configs/root`,
/// or the list of the oracle test says why they are left out.
const READ: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "dash",
    "dbus-broker",
    "dbus-system-bus-common",
    "debianutils",
    "e2fsprogs",
    "gzip",
    "iproute2",
    "kmod",
    "less",
    "libc-bin",
    "libc6",
    "libgssapi-krb5-2",
    "libpam-modules",
    "libpam-runtime",
    "libpam-systemd",
    "libpam0g",
    "libselinux1",
    "libwrap0",
    "libwtmpdb0",
    "mawk",
    "openssh-client",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "systemd-zram-generator",
    "tar",
    "tpm-udev",
    "udev",
    "util-linux",
    "vim-tiny",
];

/// Whether the package has a script whose effects nobody has declared.
pub(super) fn is_unknown(package: &Package) -> bool {
    let script = package.control.get("postinst");
    let text = script.map(|bytes| String::from_utf8_lossy(bytes));
    text.is_some_and(|text| does_something(&text)) && !READ.contains(&package.name.as_str())
}

/// Whether a script does more than what debhelper adds to it: sysusers.d and tmpfiles.d are read
/// here and at boot, and which units are enabled is said by `image.toml`.
fn does_something(script: &str) -> bool {
    let mut added = false;
    script.lines().map(str::trim).any(|line| {
        if line.starts_with("# Automatically added by dh_") {
            added = true;
        } else if line.starts_with("# End automatically added section") {
            added = false;
        } else {
            let nothing = line.is_empty()
                || line.starts_with('#')
                || matches!(line, "set -e" | "set -eu" | "exit 0" | "true" | ":");
            return !added && !nothing;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_debhelper_adds_is_known() {
        let added = "#!/bin/sh\nset -e\n# Automatically added by dh_installsystemd/13\nif true; then\n\
                     \tdeb-systemd-helper enable x\nfi\n# End automatically added section\nexit 0\n";
        let package = |name: &str, script: &str| Package {
            name: name.into(),
            files: Vec::new(),
            control: [("postinst".to_string(), script.to_string().into())].into(),
        };
        assert!(!is_unknown(&package("new", added)));
        let more = format!("{added}adduser --system new\n");
        assert!(is_unknown(&package("new", &more)));
        assert!(!is_unknown(&package("sudo", &more)));
        let none = Package {
            control: [].into(),
            ..package("new", "")
        };
        assert!(!is_unknown(&none));
    }
}
