//! Typed configuration of the image and its fleet: one definition for the builder and the daemons.
//!
//! The files are TOML, unknown keys are refused, and an error shows file, line and what would be
//! right. [`Config::load`] reads all of them, [`Fleet::load`] and the like one; all errors come at
//! once.

mod cache;
mod check;
mod error;
mod fleet;
pub mod glob;
mod image;
mod load;
pub mod modules;
pub mod render;
mod shipper;
pub mod ssh;
mod system;
pub mod trim;
mod words;

use std::path::Path;

pub use cache::{
    AccessLog, Acme, Auth, Cache, Certificate, Durability, Token, Transport, seconds_of_date,
};
pub use error::{At, Error, Errors};
pub use fleet::{Bond, Dhcp, Disks, Environment, Fleet, Host, Link, Network, Route, Vlan};
pub use image::{
    ByFlavour, Flavour, Image, Kernel, KernelPackage, Modules, Packages, Trim, TrimRule, Units,
};
pub use shipper::{Logs, Metrics, Shipper};
pub use system::{
    Allow, Dns, Filesystem, Firewall, Limits, Protocol, SysctlValue, System, Time, User, Zram,
};

use load::{File, Report, Source};

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
    /// `shipper.toml`.
    pub shipper: Shipper,
}

impl Config {
    /// Reads and checks `image.toml`, `system.toml`, `fleet.toml`, `cache.toml` and `shipper.toml` of a
    /// folder.
    ///
    /// # Errors
    /// Everything that is wrong in any of them.
    pub fn load(folder: &Path) -> Result<Self, Errors> {
        let mut errors = Vec::new();
        let (image, source) = read::<Image>(folder, &mut errors);
        let (system, _) = read::<System>(folder, &mut errors);
        let (fleet, _) = read::<Fleet>(folder, &mut errors);
        let (cache, _) = read::<Cache>(folder, &mut errors);
        let (shipper, _) = read::<Shipper>(folder, &mut errors);
        let (Some(image), Some(system), Some(fleet), Some(cache), Some(shipper)) =
            (image, system, fleet, cache, shipper)
        else {
            return Err(Errors(errors));
        };
        let config = Self {
            image,
            system,
            fleet,
            cache,
            shipper,
        };
        if let Some(source) = source {
            let mut report = Report::default();
            check::across(&config, &mut report);
            source.verdict(report)?;
        }
        Ok(config)
    }
}

/// Reads one file; what is wrong goes to `errors`.
fn read<T: File>(folder: &Path, errors: &mut Vec<Error>) -> (Option<T>, Option<Source>) {
    match Source::read::<T>(folder) {
        Ok(source) => match source.parse() {
            Ok(value) => (Some(value), Some(source)),
            Err(found) => {
                errors.extend(found.0);
                (None, Some(source))
            }
        },
        Err(found) => {
            errors.extend(found.0);
            (None, None)
        }
    }
}

macro_rules! files {
    ($($type:ty, $name:literal;)*) => { $(
        impl $type {
            #[doc = concat!("Reads and checks `", $name, "` of a folder.")]
            ///
            /// # Errors
            /// Everything that is wrong in it.
            pub fn load(folder: &Path) -> Result<Self, Errors> {
                Source::read::<Self>(folder)?.parse()
            }

            #[doc = concat!("Parses and checks the text of `", $name, "`; errors call it `path`.")]
            ///
            /// # Errors
            /// Everything that is wrong in it.
            pub fn parse(path: &Path, text: &str) -> Result<Self, Errors> {
                Source::of_text(path, text).parse()
            }
        }
    )* };
}

files! {
    Image, "image.toml";
    System, "system.toml";
    Fleet, "fleet.toml";
    Cache, "cache.toml";
    Shipper, "shipper.toml";
}

/// Fuzz target: no bytes may panic anything, and what is accepted is rendered.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("fuzz.toml");
    let said = |errors: Errors| assert!(!errors.to_string().is_empty());
    match Fleet::parse(path, &text) {
        Ok(fleet) => {
            for host in fleet.hosts.values() {
                assert!(!render::network_files(&host.network).is_empty());
            }
        }
        Err(errors) => said(errors),
    }
    ssh::fuzz(bytes);
    let _ = System::parse(path, &text).map_err(said);
    let _ = Image::parse(path, &text).map_err(said);
    let _ = Cache::parse(path, &text).map_err(said);
    let _ = Shipper::parse(path, &text).map_err(said);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folder `configs/` of this repository.
    fn shipped() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
    }

    #[test]
    fn the_shipped_configuration_is_right() {
        let config = Config::load(&shipped()).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.fleet.hosts.len(), 8);
    }
}
