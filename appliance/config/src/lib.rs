//! Typed configuration of the image and its fleet: one definition for the builder and the daemons.
//!
//! The files are TOML, unknown keys are refused, and an error shows file, line and what would be
//! right.

mod cache;
mod fleet;
mod image;
mod system;

pub use cache::Cache;
pub use fleet::{Bond, Dhcp, Disks, Environment, Fleet, Host, Link, Network, Route, Vlan};
pub use image::{Flavour, Image, Kernel, KernelPackage, Modules, Packages, Trim, TrimRule, Units};
pub use system::{
    Allow, Dns, Filesystem, Firewall, Limits, Protocol, SysctlValue, System, Time, User, Zram,
};

/// The whole of `configs/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `image.toml`.
    pub image: Image,
    /// `system.toml`.
    pub system: System,
    /// `fleet.toml`.
    pub fleet: Fleet,
    /// `cache.toml`.
    pub cache: Cache,
}
