//! `configs/image.toml`: what the image is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The file `image.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Name of the image; prefix of partition labels and of the UKI's file name.
    pub id: String,
    /// Version of the image, at most 22 bytes of `[A-Za-z0-9.~^-]` (it is part of a GPT label).
    pub version: String,
    /// The kernel and how it is started.
    pub kernel: Kernel,
    /// Debian packages.
    pub packages: Packages,
    /// What of the packages is left out of the root.
    pub trim: Trim,
    /// Kernel modules.
    pub modules: Modules,
    /// systemd units enabled and masked beside what the units of the overlay ask for.
    pub units: Units,
}

/// The kernel and how it is started.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Which of [`Packages::kernels`] boots.
    pub default: String,
    /// The command line but for `roothash=`, which the builder adds.
    pub cmdline: Vec<String>,
}

/// Debian packages.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Debian architecture; only `amd64` so far.
    pub architecture: String,
    /// Suites in use: `trixie`, `trixie-security`, `trixie-backports`.
    pub suites: Vec<String>,
    /// What is asked for by name; dependencies and Essential packages come by themselves.
    pub install: Vec<String>,
    /// Never installed though something depends on it: name → reason.
    pub exclude: BTreeMap<String, String>,
    /// Packages of the sysroot that our binaries are built against; not installed.
    pub build: Vec<String>,
    /// Package name → suite that it is taken from though another has a newer one.
    #[serde(default)]
    pub pins: BTreeMap<String, String>,
    /// Kernels that the lock holds, by the name that [`Kernel::default`] uses.
    pub kernels: BTreeMap<String, KernelPackage>,
}

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPackage {
    /// Suites to look in.
    pub suites: Vec<String>,
    /// Prefix of the kernel's version: `6.18`, `6.12`; empty: the newest.
    #[serde(default)]
    pub version: String,
    /// `cloud` or `generic`.
    pub flavour: Flavour,
}

/// Debian's kernel flavours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// For virtual machines.
    Cloud,
    /// For hardware.
    Generic,
}

/// What of the packages is left out of the root: rules in order, the last that matches wins.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Trim {
    /// The rules.
    pub rules: Vec<TrimRule>,
}

/// One rule of [`Trim`].
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrimRule {
    /// Glob patterns of absolute paths: `*` within a component, `**` across.
    pub paths: Vec<String>,
    /// `true` keeps what an earlier rule dropped.
    #[serde(default)]
    pub keep: bool,
    /// Why.
    pub why: String,
}

/// Kernel modules by name (without `.ko`; `-` and `_` are the same). Dependencies come by
/// themselves; [`crate::modules`] answers what a flavour needs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Modules {
    /// In the initramfs, loaded by stage1 in this order; those the kernel has built in are skipped.
    pub initrd: ByFlavour,
    /// Loaded at boot from the root (`/etc/modules-load.d`).
    pub load: Vec<String>,
    /// Globs of module names or of paths (`kernel/net/netfilter/**`) kept in the root.
    pub keep: ByFlavour,
}

/// A list of modules with its additions for each flavour of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ByFlavour {
    /// For every flavour.
    #[serde(default)]
    pub common: Vec<String>,
    /// For the cloud flavour, after `common`.
    #[serde(default)]
    pub cloud: Vec<String>,
    /// For the generic flavour, after `common`.
    #[serde(default)]
    pub generic: Vec<String>,
}

impl ByFlavour {
    /// The list for a flavour.
    pub fn of(&self, flavour: Flavour) -> impl Iterator<Item = &str> {
        let more = match flavour {
            Flavour::Cloud => &self.cloud,
            Flavour::Generic => &self.generic,
        };
        self.common.iter().chain(more).map(String::as_str)
    }
}

/// systemd units.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// Enabled (their `[Install]` section is carried out).
    pub enable: Vec<String>,
    /// Masked, with the reason.
    pub mask: BTreeMap<String, String>,
}
