//! `imagegen inspect`: what is in an image, for people and for scripts.

mod report;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::image::Image;
use crate::manifest::Manifest;
use crate::output;

pub use report::{FileSize, PackageSize, Partition, Report, Size};

/// Show what is in an image or on a disk: partitions, boot images, packages, units, sizes.
///
/// Reads image files and disks that they were flashed to. With the manifest beside the image, files
/// are counted by the package they come from. Nothing is checked; `verify` does that.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The image file or block device
    #[arg(default_value = "build/larder.raw")]
    pub image: PathBuf,

    /// The manifest of the image [default: the one beside it, if there is one]
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// List everything, not only the largest
    #[arg(long)]
    pub all: bool,

    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows.
///
/// # Errors
/// An image or manifest that cannot be read.
pub fn run(args: InspectArgs) -> Result<ExitCode> {
    let image = Image::open(&args.image)?;
    let beside = Manifest::path_beside(&args.image);
    let manifest = match &args.manifest {
        Some(path) => Some(Manifest::load(path)?),
        None if beside.exists() => Some(Manifest::load(&beside)?),
        None => None,
    };
    let report = Report::of(&image, manifest.as_ref());
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.text(args.all))?;
    }
    Ok(match report.problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
