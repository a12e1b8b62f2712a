//! `imagegen diff`: what changed from one image to another, in words.

mod changes;
mod lines;
mod settings;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::image::{Description, Image};
use crate::manifest::Manifest;
use crate::output;

pub use changes::{Attribute, Changes, FileChange, PackageChange, Source, UnitChanges};
pub use settings::SettingChange;

/// Say what changed from one image to another: packages, kernel, units, settings, files, sizes.
///
/// Takes image files, disks, or manifests (larder.manifest.json; contents of files are then not
/// shown). Exit status as diff's: 0 nothing differs, 1 something does, 2 trouble.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// The old image, disk or manifest
    #[arg(value_name = "OLD")]
    pub old: PathBuf,

    /// The new image, disk or manifest
    #[arg(value_name = "NEW")]
    pub new: PathBuf,

    /// List the files of changed packages, too
    #[arg(long)]
    pub all: bool,

    /// Print the changes as JSON
    #[arg(long)]
    pub json: bool,
}

/// Compares and prints; trouble is printed, too, and has its own exit status.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: DiffArgs) -> Result<ExitCode> {
    let changes = match compare(&args.old, &args.new) {
        Ok(changes) => changes,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    if args.json {
        output::print_json(&changes)?;
    } else {
        output::print(&changes.text(args.all))?;
    }
    Ok(match changes.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What changed from the image or manifest at `old` to that at `new`.
///
/// # Errors
/// One of them cannot be read.
pub fn compare(old: &Path, new: &Path) -> Result<Changes> {
    Ok(Changes::between(&describe(old)?, &describe(new)?))
}

fn describe(path: &Path) -> Result<Description> {
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        return Ok(Description::of_manifest(path, Manifest::load(path)?));
    }
    let image = Image::open(path)?;
    let beside = Manifest::path_beside(path);
    let manifest = match beside.exists() {
        true => Some(Manifest::load(&beside)?),
        false => None,
    };
    Description::of_image(&image, manifest.as_ref())
}
