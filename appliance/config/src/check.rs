//! What is wrong in a file though its form is right.

use crate::load::{File, Report, place};
use crate::{Cache, Config, Fleet, Image, System};

impl File for Image {
    const NAME: &'static str = "image.toml";
    fn check(&self, report: &mut Report) {
        if !self.packages.kernels.contains_key(&self.kernel.default) {
            let known: Vec<&str> = self.packages.kernels.keys().map(String::as_str).collect();
            report.wrong(
                place!["kernel", "default"],
                format!("there is no kernel {:?}", self.kernel.default),
                crate::words::suggest(&self.kernel.default, &known, "packages.kernels has"),
            );
        }
    }
}

impl File for System {
    const NAME: &'static str = "system.toml";
    fn check(&self, _: &mut Report) {}
}

impl File for Fleet {
    const NAME: &'static str = "fleet.toml";
    fn check(&self, _: &mut Report) {}
}

impl File for Cache {
    const NAME: &'static str = "cache.toml";
    fn check(&self, _: &mut Report) {}
}

/// What only all files together show; places are of `image.toml`.
pub(crate) fn across(_: &Config, _: &mut Report) {}
