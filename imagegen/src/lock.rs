//! `imagegen lock`: which packages, exactly, an image is made of.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use packages::{Cache, Error, Fetcher, KernelRequest, Lock, Refresh, Request};

use crate::terminal::Terminal;

/// Name of the lock in the folder of the configuration.
pub const NAME: &str = "packages.lock";

/// Write packages.lock: every package of the image by version, path and SHA-256.
///
/// Resolves what image.toml asks for against the signed indexes of its suites. What is locked
/// already stays as it is; only what image.toml newly asks for is looked up. With --update
/// everything takes its newest version, or the packages and kernels that are named and what they
/// then need. Says in words what changed. The lock is replaced in one step or not at all. Needs no
/// root and does not touch this machine's own packages.
#[derive(Args, Clone, Debug)]
pub struct LockArgs {
    /// Folder of the configuration
    #[arg(long, default_value = "configs", value_name = "DIR")]
    pub configs: PathBuf,

    /// Take the newest versions: of everything, or of these packages and kernels only
    #[arg(long, value_name = "PACKAGE", num_args = 0..)]
    pub update: Option<Vec<String>>,

    /// Ask this Debian mirror instead of those of this machine's apt sources
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,

    /// Say what would change and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What `image.toml` asks the archive for.
#[must_use]
pub fn request(packages: &config::Packages) -> Request {
    let kernel = |(name, kernel): (&String, &config::KernelPackage)| {
        let flavour = match kernel.flavour {
            config::Flavour::Cloud => packages::Flavour::Cloud,
            config::Flavour::Generic => packages::Flavour::Generic,
        };
        let request = KernelRequest {
            suites: kernel.suites.clone(),
            version: kernel.version.clone(),
            flavour,
        };
        (name.clone(), request)
    };
    Request {
        architecture: packages.architecture.clone(),
        suites: packages.suites.clone(),
        install: packages.install.clone(),
        exclude: packages.exclude.clone(),
        build: packages.build.clone(),
        pins: packages.pins.clone(),
        kernels: packages.kernels.iter().map(kernel).collect(),
    }
}

/// Runs `imagegen lock`.
///
/// # Errors
/// A configuration that is wrong, a mirror that cannot be reached or trusted, packages that do not
/// fit together: in words. The lock is then as it was.
pub fn run(args: LockArgs) -> Result<ExitCode> {
    let terminal = Arc::new(Terminal::default());
    let fetcher = Fetcher::new(args.mirror.clone(), Cache::of_user()?, terminal.clone());
    let outcome = renew(&args, &fetcher);
    terminal.done();
    print!("{}", outcome?);
    Ok(ExitCode::SUCCESS)
}

/// Makes the lock or brings it up to date; gives what there is to say about it.
///
/// # Errors
/// As [`run`].
pub fn renew(args: &LockArgs, fetcher: &Fetcher) -> Result<String> {
    // The other files may be wrong: they have no say in this.
    let image = config::Image::load(&args.configs)?;
    let request = request(&image.packages);
    let path = args.configs.join(NAME);
    let previous = previous(&path, args, fetcher)?;
    let Some(previous) = previous else {
        let lock = fetcher.resolve(&request)?;
        let mut text = new_words(&lock);
        finish(&lock, &path, args, &mut text)?;
        return Ok(text);
    };
    let refresh = match args.update.as_deref() {
        None if previous.request == request.digest() => {
            return Ok(format!(
                "{} is what image.toml asks for; --update looks for newer packages\n",
                path.display()
            ));
        }
        None => Refresh::Nothing,
        Some([]) => Refresh::Everything,
        Some(names) => Refresh::Only(names),
    };
    let lock = fetcher.update(&previous, refresh, &request)?;
    let mut text = format!("{}\n", previous.diff(&lock));
    if lock == previous {
        let _ = writeln!(text, "{} stays as it is", path.display());
    } else {
        finish(&lock, &path, args, &mut text)?;
    }
    Ok(text)
}

/// The lock that is there; one that makes no sense is made anew, unless only a part of it was to
/// change.
fn previous(path: &Path, args: &LockArgs, fetcher: &Fetcher) -> Result<Option<Lock>> {
    let there = path
        .try_exists()
        .with_context(|| format!("cannot look at {}", path.display()))?;
    match Lock::load(path) {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::Lock { .. }) if !there => Ok(None),
        Err(error @ Error::Lock { .. }) => {
            if args.update.as_ref().is_some_and(|names| !names.is_empty()) {
                bail!("{error}: `imagegen lock` makes it anew, then a part of it can be updated");
            }
            fetcher
                .progress
                .warning(&format!("{error}; making it anew"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn finish(lock: &Lock, path: &Path, args: &LockArgs, text: &mut String) -> Result<()> {
    // Writing to a String cannot fail.
    let _ = if args.dry_run {
        writeln!(text, "{} is not written: --dry-run", path.display())
    } else {
        lock.save(path)?;
        writeln!(
            text,
            "{} is written; the next build uses it",
            path.display()
        )
    };
    Ok(())
}

/// What a lock that is made from nothing holds.
fn new_words(lock: &Lock) -> String {
    let mut text = format!(
        "locked: {} packages and {} to build against, {:.1} MB in all\n",
        lock.system().count(),
        lock.build().count(),
        lock.download_size() as f64 / 1e6
    );
    for name in lock.kernels() {
        // Writing to a String cannot fail.
        let _ = match image_of(lock, name) {
            Some(image) => writeln!(text, "kernel {name}: {} ({})", image.version, image.suite),
            None => writeln!(text, "kernel {name}"),
        };
    }
    text
}

/// The package of a locked kernel that gives it its version.
pub(crate) fn image_of<'a>(lock: &'a Lock, kernel: &str) -> Option<&'a packages::Package> {
    lock.kernel(kernel)
        .find(|package| package.name.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests;
