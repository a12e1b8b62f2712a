//! `imagegen build`: from configs/ and the lock to a bootable image.
//!
//! Everything is a function of (configuration, lock, our two programs): no clock, no randomness, no
//! name of this machine gets into the image. The way: packages ([`crate::rootfs`]) → sealed ext4 →
//! hash tree → initramfs → UKI → ESP → partition table ([`image`]) → the files beside it
//! ([`outputs`]).

mod binaries;
mod compress;
mod esp;
mod image;
mod initramfs;
mod outputs;
mod pcr_policy;
mod sbom;
mod sources;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::fleet;
use crate::size::parse_size;

/// Build the image: rootless, reproducible, from locked packages.
///
/// Writes larder.raw (sparse, bootable), larder.raw.zst, larder.manifest.json (hashes and origin of
/// every part and file) and larder.sbom.json (SPDX 2.3) to the output folder. The same
/// configuration, lock and compiler give the same bytes, wherever, whenever and by whomever they
/// are built. Packages come from the mirrors of this machine's apt sources, or from --mirror, and
/// are kept: a second build needs no network.
#[derive(Args, Clone, Debug)]
pub struct BuildArgs {
    /// Folder of the configuration
    #[arg(long, default_value = "configs", value_name = "DIR")]
    pub configs: PathBuf,

    /// The manifest of secrets [default: secrets/manifest.toml beside the folder, if it is there]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,

    /// Folder for what is built
    #[arg(long, default_value = "build", value_name = "DIR")]
    pub out: PathBuf,

    /// Bake in which host of the fleet the machine is; a host with a second disk for /cas also gets
    /// larder-cas.raw
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,

    /// Fit the image to a disk of this size instead of the smallest possible
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk_size: Option<u64>,

    /// Kernel to boot, one of those in the lock, instead of image.toml's
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,

    /// Take the programs `appliance` and `stage1` from here instead of compiling them
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,

    /// Sign the PCR 11 policy with this RSA private key (PEM): .pcrpkey and .pcrsig of the UKI
    #[arg(long, value_name = "FILE")]
    pub pcr_key: Option<PathBuf>,

    /// Fetch packages from this Debian mirror instead of this machine's apt sources
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,

    /// Fail if a locked package is gone from every mirror, instead of resolving it anew
    #[arg(long)]
    pub locked: bool,

    /// Leave out larder.raw.zst
    #[arg(long)]
    pub no_compress: bool,
}

/// Builds.
///
/// # Errors
/// Anything wrong with the configuration, the lock, the mirrors, the compiler or the disk, in words.
/// Nothing half-written is left under a final name.
pub fn run(args: BuildArgs) -> Result<ExitCode> {
    let steps = steps::Steps::start();
    let config = config::Config::load(&args.configs)?;
    let kernel = args
        .kernel
        .clone()
        .unwrap_or_else(|| config.image.kernel.default.clone());
    let host = match &args.host {
        Some(name) => Some((
            name.as_str(),
            fleet::find(&config.fleet, &args.configs, name)?,
        )),
        None => None,
    };
    let key = args
        .pcr_key
        .as_deref()
        .map(pcr_policy::PolicyKey::read)
        .transpose()?;
    let outputs = outputs::Outputs::prepare(&args.out)?;

    let sources = sources::gather(&args, &config, &kernel, &steps)?;
    let image = image::write(
        &image::Parts {
            config: &config,
            sources: &sources,
            host: host.map(|(name, entry)| (name, entry.disks.cas.is_some())),
            disk_size: args.disk_size,
            key: key.as_ref(),
        },
        &outputs,
        &steps,
    )?;
    outputs.finish(&sources, image, !args.no_compress, &steps)?;
    Ok(ExitCode::SUCCESS)
}
