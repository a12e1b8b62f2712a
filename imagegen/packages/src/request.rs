//! What is asked for: the packages, kernels and exclusions that a lock is made from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// A request; has the shape of the `[packages]` table of `configs/image.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Debian architecture, such as `amd64`.
    pub architecture: String,
    /// Suites in use: `trixie`, `trixie-security`, `trixie-backports`.
    ///
    /// The highest version of a package among them wins; suites that Debian marks
    /// `NotAutomatic` (backports) are only used for pins, for kernels and for what pinned packages
    /// need and no other suite has.
    pub suites: Vec<String>,
    /// Packages to install; dependencies and Essential packages come by themselves.
    pub install: Vec<String>,
    /// Treated as installed, never installed: name → reason.
    #[serde(default)]
    pub exclude: BTreeMap<String, String>,
    /// Packages to build against; exactly these, without their dependencies.
    #[serde(default)]
    pub build: Vec<String>,
    /// Package → suite that it must come from.
    #[serde(default)]
    pub pins: BTreeMap<String, String>,
    /// Kernels by name, such as `6.18-cloud`.
    #[serde(default)]
    pub kernels: BTreeMap<String, KernelRequest>,
}

/// Which kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRequest {
    /// Suites to look in.
    pub suites: Vec<String>,
    /// Leading components of the version, such as `6.12` or `6.18.15`; empty: the newest.
    #[serde(default)]
    pub version: String,
    /// Debian's flavour.
    pub flavour: Flavour,
}

/// Debian's kernel flavours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// For virtual machines (`-cloud-amd64`).
    Cloud,
    /// For hardware (`-amd64`).
    Generic,
}

impl Flavour {
    /// What follows the version in names of packages, such as `cloud-amd64`.
    pub(crate) fn suffix(self, architecture: &str) -> String {
        match self {
            Flavour::Cloud => format!("cloud-{architecture}"),
            Flavour::Generic => architecture.to_owned(),
        }
    }
}

impl Request {
    /// SHA-256 over everything that a lock depends on: order, doubles and the wording of reasons
    /// do not count.
    pub fn digest(&self) -> Digest {
        let set = |names: &[String]| {
            names
                .iter()
                .map(String::as_str)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut text = format!(
            "larder packages 1\narchitecture {}\nsuites {}\ninstall {}\nexclude {}\nbuild {}\n",
            self.architecture,
            set(&self.suites),
            set(&self.install),
            self.exclude
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" "),
            set(&self.build),
        );
        for (package, suite) in &self.pins {
            text += &format!("pin {package} {suite}\n");
        }
        for (name, kernel) in &self.kernels {
            let flavour = kernel.flavour.suffix(&self.architecture);
            text += &format!(
                "kernel {name} {} {} {flavour}\n",
                set(&kernel.suites),
                kernel.version
            );
        }
        Digest::of(text.as_bytes())
    }

    /// Every suite that is needed, in the order given.
    pub(crate) fn all_suites(&self) -> Vec<&str> {
        let kernels = self.kernels.values().flat_map(|k| &k.suites);
        let mut seen = BTreeSet::new();
        self.suites
            .iter()
            .chain(self.pins.values())
            .chain(kernels)
            .map(String::as_str)
            .filter(|suite| seen.insert(*suite))
            .collect()
    }

    /// Finds what can be said without a network.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Request(text));
        if self.suites.is_empty() {
            return wrong("no suites are named (trixie, trixie-security, …)".into());
        }
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .next()
                    .is_some_and(|b| b.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
        };
        if !plain(&self.architecture, "-") {
            return wrong(format!(
                "architecture `{}`: not a Debian architecture",
                self.architecture
            ));
        }
        for suite in self.all_suites() {
            if !plain(suite, "-._") {
                return wrong(format!(
                    "suite `{suite}`: not a name of a suite (trixie, …)"
                ));
            }
        }
        let names = self
            .install
            .iter()
            .chain(self.exclude.keys())
            .chain(&self.build)
            .chain(self.pins.keys());
        for name in names {
            if !plain(name, "+-.") {
                return wrong(format!("package `{name}`: not a name of a Debian package"));
            }
        }
        for (name, kernel) in &self.kernels {
            if !plain(name, "+-._") {
                return wrong(format!(
                    "kernel `{name}`: not a name (letters, digits, `.`, `-`)"
                ));
            }
            if kernel.suites.is_empty() {
                return wrong(format!("kernel `{name}`: no suites to look in"));
            }
        }
        for name in &self.install {
            if let Some(reason) = self.exclude.get(name) {
                return wrong(format!(
                    "package `{name}` is asked for and excluded at the same time (excluded because: {reason})"
                ));
            }
        }
        for (name, reason) in &self.exclude {
            if reason.trim().is_empty() {
                return wrong(format!("package `{name}` is excluded without a reason"));
            }
        }
        Ok(())
    }
}
