//! What goes into an image: locked packages, our programs, the assembled root.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use formats::tree::Tree;
use packages::{Cache, Fetcher, Lock, Progress as _, Role};

use super::BuildArgs;
use super::binaries::{self, Binaries};
use super::initramfs;
use super::steps::Steps;
use crate::{lock, rootfs};

/// Where Debian's systemd-boot-efi has its programs.
const EFI: &str = "/usr/lib/systemd/boot/efi";

/// Everything that an image is made of.
pub(super) struct Sources {
    /// The lock that was built from.
    pub(super) lock: Lock,
    /// Its packages that are in the image, the kernel's included.
    pub(super) packages: Vec<packages::Package>,
    /// Our programs.
    pub(super) binaries: Binaries,
    /// The root file system.
    pub(super) root: Tree,
    /// The kernel.
    pub(super) linux: Bytes,
    /// Its release, `uname -r`.
    pub(super) uname: String,
    /// The initramfs.
    pub(super) initrd: Vec<u8>,
    /// `linuxx64.efi.stub`.
    pub(super) boot_stub: Bytes,
    /// `systemd-bootx64.efi`.
    pub(super) boot_loader: Bytes,
    /// os-release of the root.
    pub(super) osrel: Vec<u8>,
    /// Seconds since 1970 that everything is dated with.
    pub(super) clock: i64,
    /// Name of the image.
    pub(super) id: String,
    /// Version of the image.
    pub(super) version: String,
}

type Files = Vec<(packages::Package, PathBuf)>;

/// Fetches, compiles, unpacks and assembles.
pub(super) fn gather(
    args: &BuildArgs,
    config: &config::Config,
    kernel: &str,
    steps: &Steps,
) -> Result<Sources> {
    let cache = Cache::of_user()?;
    let (lock, files) = fetch(args, config, kernel, &cache, steps)?;
    let clock = i64::try_from(lock.date).context("the lock's date")?;
    let of = |wanted: fn(&Role) -> bool| -> Files {
        files
            .iter()
            .filter(|(p, _)| wanted(&p.role))
            .cloned()
            .collect()
    };
    let (system, build, linux) = (
        of(|role| *role == Role::System),
        of(|role| *role == Role::Build),
        of(|role| matches!(role, Role::Kernel(_))),
    );

    if args.binaries.is_none() {
        steps
            .terminal
            .step("compiling appliance and stage1 (minutes the first time)");
    }
    // cargo waits for locks and starts rustc; meanwhile the packages are decoded.
    let (binaries, unpacked) = std::thread::scope(|scope| {
        let binaries = scope.spawn(|| programs(args, &build, &cache, clock));
        let unpacked = rootfs::unpack(config, &system, &linux);
        (binaries.join(), unpacked)
    });
    let binaries = binaries.map_err(|_| anyhow::anyhow!("compiling panicked"))??;
    let unpacked = unpacked?;
    steps.done(&format!("{} packages unpacked", system.len() + linux.len()));
    for package in &unpacked.unknown_scripts {
        steps.warn(&format!(
            "package {package} has a postinst script, which is not run; see whether the image needs \
             what it does (imagegen/src/rootfs/scripts.rs)"
        ));
    }

    let efi = |name: &str| -> Result<Bytes> {
        let path = format!("{EFI}/{name}");
        let found = unpacked.packages.iter().find_map(|p| p.content(&path));
        found.with_context(|| format!("no package has {path}; image.toml needs systemd-boot-efi"))
    };
    let (boot_stub, boot_loader) = (efi("linuxx64.efi.stub")?, efi("systemd-bootx64.efi")?);
    let kernel = unpacked.kernel;
    let initrd_modules: Vec<_> = kernel.initrd.clone();
    let (linux_image, uname) = (kernel.image.clone(), kernel.release.clone());
    let stage1 = &binaries.stage1;
    let secrets = args
        .secrets
        .clone()
        .or_else(|| rootfs::secrets::manifest_of(&args.configs));
    let (root, initrd) = std::thread::scope(|scope| {
        let initrd = scope.spawn(|| initramfs::pack(stage1, &initrd_modules, clock));
        let root = rootfs::assemble(rootfs::Sources {
            config,
            configs: &args.configs,
            secrets: secrets.as_deref(),
            packages: unpacked.packages,
            kernel,
            binaries: vec![("/usr/bin/appliance".into(), binaries.appliance.clone())],
            clock,
            build: rootfs::Build {
                id: config.image.id.clone(),
                version: config.image.version.clone(),
                kernel: uname.clone(),
                clock,
            },
        });
        (root, initrd.join())
    });
    let initrd = initrd.map_err(|_| anyhow::anyhow!("packing the initramfs panicked"))??;
    let root = root?;
    steps.done(&format!("root, {} files", root.len()));
    Ok(Sources {
        osrel: rootfs::osrel(&root)?,
        packages: system
            .into_iter()
            .chain(linux)
            .map(|(package, _)| package)
            .collect(),
        lock,
        binaries,
        root,
        linux: linux_image,
        uname,
        initrd,
        boot_stub,
        boot_loader,
        clock,
        id: config.image.id.clone(),
        version: config.image.version.clone(),
    })
}

/// The lock's packages, downloaded; a lock that had to be renewed is saved.
fn fetch(
    args: &BuildArgs,
    config: &config::Config,
    kernel: &str,
    cache: &Cache,
    steps: &Steps,
) -> Result<(Lock, Files)> {
    let path = args.configs.join(lock::NAME);
    let locked = Lock::load(&path)?;
    let request = lock::request(&config.image.packages);
    if locked.request != request.digest() {
        bail!(
            "{} was made for other packages than image.toml asks for; run `imagegen lock`",
            path.display()
        );
    }
    if locked.kernel(kernel).next().is_none() {
        bail!(
            "the lock has no kernel {kernel}; it has {}",
            locked.kernels().join(", ")
        );
    }
    let mut roles = vec![Role::System, Role::Kernel(kernel.to_string())];
    if args.binaries.is_none() {
        roles.push(Role::Build);
    }
    let fetcher = Fetcher::new(args.mirror.clone(), cache.clone(), steps.terminal.clone());
    let fetched = fetcher.fetch_or_renew(&locked, &roles, &request, args.locked)?;
    steps.terminal.done();
    if let Some(diff) = &fetched.renewed {
        steps.warn(&format!(
            "packages of the lock are gone from every source; {} now has:\n{diff}",
            path.display()
        ));
        fetched.lock.save(&path)?;
    }
    Ok((fetched.lock, fetched.files))
}

/// Our programs: prebuilt, or compiled against the lock's libc.
fn programs(args: &BuildArgs, build: &Files, cache: &Cache, clock: i64) -> Result<Binaries> {
    if let Some(dir) = &args.binaries {
        return binaries::prebuilt(dir);
    }
    let digests: Vec<String> = build.iter().map(|(p, _)| p.sha256.to_string()).collect();
    let sysroot = binaries::sysroot(|| rootfs::unpack_plain(build), &digests, cache.root())?;
    let workspace = workspace()?;
    binaries::compile(&workspace, &sysroot, &workspace.join("target/image"), clock)
}

/// The source tree: the folder at or above this one whose `appliance/stage1` is ours.
fn workspace() -> Result<PathBuf> {
    let here = std::env::current_dir().context("the current folder")?;
    here.ancestors()
        .find(|dir| dir.join("appliance/stage1/Cargo.toml").is_file())
        .map(PathBuf::from)
        .with_context(|| {
            format!(
                "{} is not in Larder's source tree, so its programs cannot be compiled: run this \
                 there, or name prebuilt programs by --binaries",
                here.display()
            )
        })
}
