//! `imagegen check`: whether the configuration and the lock are right, and how old they are.

mod report;

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use config::Config;
use packages::{Cache, Fetcher, Lock, News, Role};

use crate::lock;
use crate::rootfs::secrets::{UNITS, manifest_of, unit_file};
use crate::terminal::Terminal;

pub use report::{Kernel, Locked, Problem, Report, Secrets};

/// Check the configuration and the lock, and say how old what is locked is.
///
/// Reads image.toml, system.toml, fleet.toml, cache.toml, shipper.toml and packages.lock and shows
/// everything that is wrong at once, with file, line and what would be right; of the manifest of
/// secrets also what the token of a machine must be allowed. Needs no network, unless
/// --online asks for what is newer. Exit status: 0 all is well, 1 something is wrong.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Folder of the configuration
    #[arg(long, default_value = "configs", value_name = "DIR")]
    pub configs: PathBuf,

    /// The manifest of secrets [default: secrets/manifest.toml beside the folder, if it is there]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,

    /// Say it as JSON
    #[arg(long)]
    pub json: bool,

    /// Ask the mirrors which packages and kernels are newer
    #[arg(long)]
    pub online: bool,

    /// Ask this Debian mirror instead of those of this machine's apt sources
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,
}

/// Runs `imagegen check`.
///
/// # Errors
/// The mirrors cannot be asked. What is wrong with the configuration is said and is no error here:
/// the exit status says it.
pub fn run(args: CheckArgs) -> Result<ExitCode> {
    let terminal = Arc::new(Terminal::default());
    let fetcher = Fetcher::new(args.mirror.clone(), Cache::of_user()?, terminal.clone());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let report = check(&args, &fetcher, now);
    terminal.done();
    let report = report?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
        eprint!("{}", report.problems());
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Looks at everything; `now` is in seconds since 1970.
///
/// # Errors
/// As [`run`].
pub fn check(args: &CheckArgs, fetcher: &Fetcher, now: u64) -> Result<Report> {
    let mut report = Report::default();
    let path = args.configs.join(lock::NAME);
    let config = Config::load(&args.configs);
    let image = match &config {
        Ok(config) => {
            report.hosts = config.fleet.hosts.keys().cloned().collect();
            Some(config.image.clone())
        }
        Err(errors) => {
            report.problems.extend(errors.0.iter().map(Problem::from));
            // The lock can be looked at all the same, if this file is right.
            config::Image::load(&args.configs).ok()
        }
    };
    secrets(args, &mut report);
    match Lock::load(&path) {
        Err(error) => report
            .problems
            .push(Problem::plain(&path, &error.to_string())),
        Ok(lock) => {
            let mut locked = Locked::new(&lock, now);
            if let Some(image) = &image {
                let request = lock::request(&image.packages);
                if lock.request == request.digest() {
                    locked.fits = true;
                } else {
                    report.problems.push(stale(&path, &lock, &request));
                }
                report.kernels = kernels(&lock, &image.kernel.default, &fetcher.cache, now)?;
                if args.online {
                    let News { packages, kernels } = fetcher.news(&lock, &request)?;
                    report.news = Some(packages.to_string());
                    for news in kernels {
                        let kernel = report
                            .kernels
                            .iter_mut()
                            .find(|kernel| kernel.name == news.name);
                        if let Some(kernel) = kernel {
                            kernel.tell(news);
                        }
                    }
                }
            }
            report.lock = Some(locked);
        }
    }
    report.ok = report.problems.is_empty();
    Ok(report)
}

/// Looks at the manifest of secrets, if there is one.
fn secrets(args: &CheckArgs, report: &mut Report) {
    let manifest = args.secrets.clone();
    let Some(path) = manifest.or_else(|| manifest_of(&args.configs)) else {
        return;
    };
    match secrets::manifest::Manifest::load(&path) {
        Ok(manifest) => {
            // Those of the overlay: `build` looks at those of packages too, which it unpacks.
            let exists = |unit: &str| {
                let file = unit_file(unit);
                let mut folders = UNITS.iter();
                folders.any(|folder| args.configs.join(format!("root{folder}/{file}")).exists())
            };
            if let Err(problems) = manifest.check_consumers(exists) {
                let problems = problems.iter();
                report
                    .problems
                    .extend(problems.map(|problem| Problem::plain(&path, problem)));
            }
            report.secrets = Some(Secrets {
                count: manifest.secrets.len(),
                privileges: manifest
                    .privileges()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            });
        }
        Err(error) => {
            let problems = error.problems.iter();
            report
                .problems
                .extend(problems.map(|problem| Problem::secret(&path, problem)));
        }
    }
}

/// A lock that was made from another request, with what can be told about the difference.
fn stale(path: &std::path::Path, lock: &Lock, request: &packages::Request) -> Problem {
    let has = |role: &Role, name: &str| lock.of_role(role).any(|package| package.name == name);
    let mut more = Vec::new();
    let missing = request
        .install
        .iter()
        .filter(|name| !has(&Role::System, name));
    more.extend(missing.map(|name| format!("{name} is not in it")));
    let missing = request
        .build
        .iter()
        .filter(|name| !has(&Role::Build, name) && !has(&Role::System, name));
    more.extend(missing.map(|name| format!("{name} (to build against) is not in it")));
    let kernels = lock.kernels();
    let missing = request
        .kernels
        .keys()
        .filter(|name| !kernels.contains(&name.as_str()));
    more.extend(missing.map(|name| format!("kernel {name} is not in it")));
    let excluded = request
        .exclude
        .keys()
        .filter(|name| has(&Role::System, name));
    more.extend(excluded.map(|name| format!("{name} is in it, but excluded")));
    let gone = kernels
        .iter()
        .filter(|name| !request.kernels.contains_key(**name));
    more.extend(gone.map(|name| format!("kernel {name} is in it, but not asked for")));
    let message = match more.is_empty() {
        true => "it was made for another table [packages] of image.toml".to_owned(),
        false => format!(
            "it was made for another table [packages] of image.toml: {}",
            more.join(", ")
        ),
    };
    let mut problem = Problem::plain(path, &message);
    problem.hint = "run: imagegen lock".into();
    problem
}

/// The locked kernels; when one was built, its package says, if it has been downloaded.
fn kernels(lock: &Lock, default: &str, cache: &Cache, now: u64) -> Result<Vec<Kernel>> {
    let mut found = Vec::new();
    for name in lock.kernels() {
        let Some(image) = lock::image_of(lock, name) else {
            continue;
        };
        let built = built(&cache.path(&image.sha256, "deb"))?;
        let locked = (image.version.clone(), image.suite.clone());
        found.push(Kernel::new(name, locked, built, name == default, now));
    }
    Ok(found)
}

/// When a .deb was built, in seconds since 1970: the time of its first member (ar(5)), which
/// dpkg-deb takes from the changelog. `None` if it is not there.
fn built(deb: &std::path::Path) -> Result<Option<u64>> {
    let mut head = Vec::new();
    match File::open(deb) {
        Ok(file) => file.take(36).read_to_end(&mut head),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot read {}", deb.display()))?;
    let time = head
        .strip_prefix(b"!<arch>\n")
        .and_then(|member| member.get(16..28));
    let text = time.and_then(|time| std::str::from_utf8(time).ok());
    Ok(text.and_then(|text| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests;
