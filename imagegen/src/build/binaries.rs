//! Our own binaries: built against the lock's libc, or taken prebuilt.
//!
//! Two checkouts give the same bytes as long as compiler and linker are the same: source paths
//! are remapped, and what differs between checkouts reaches rustc through a wrapper only, since
//! Cargo mixes RUSTFLAGS into the names of symbols.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use formats::tree::{Kind, Tree};
use packages::Digest;

/// The target that everything in the image is built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What was built and by what.
pub(super) struct Binaries {
    /// `/usr/bin/appliance`.
    pub(super) appliance: Bytes,
    /// `/init` of the initramfs.
    pub(super) stage1: Bytes,
    /// First line of `rustc --version` with its commit, and the C compiler's.
    pub(super) compiler: String,
    /// The crates that are linked into them; none is known of prebuilt programs.
    pub(super) crates: Vec<Crate>,
}

/// A crate in our programs.
pub(super) struct Crate {
    /// Name.
    pub(super) name: String,
    /// Version.
    pub(super) version: String,
    /// Licence expression.
    pub(super) license: Option<String>,
}

/// Reads `appliance`, `stage1` and, if it is there, `compiler` from a folder.
///
/// # Errors
/// A file that is missing or is no ELF program.
pub(super) fn prebuilt(dir: &Path) -> Result<Binaries> {
    let read = |name: &str| -> Result<Bytes> {
        let path = dir.join(name);
        let data = fs::read(&path).with_context(|| {
            format!(
                "{}: --binaries names a folder with appliance and stage1",
                path.display()
            )
        })?;
        ensure!(
            data.starts_with(b"\x7fELF"),
            "{}: not an ELF program",
            path.display()
        );
        Ok(data.into())
    };
    let compiler = fs::read_to_string(dir.join("compiler")).unwrap_or_else(|_| "prebuilt".into());
    Ok(Binaries {
        appliance: read("appliance")?,
        stage1: read("stage1")?,
        compiler: compiler.trim().to_string(),
        crates: Vec::new(),
    })
}

/// Lays the build packages (`tree`, asked for only then) out as a sysroot below `cache`, once per
/// set of packages, which `digests` names.
///
/// # Errors
/// A file that can't be written.
pub(super) fn sysroot(
    tree: impl FnOnce() -> Result<Tree>,
    digests: &[String],
    cache: &Path,
) -> Result<PathBuf> {
    // Half of a digest tells sets of packages apart.
    let mut name = Digest::of(digests.concat().as_bytes()).to_string();
    name.truncate(16);
    let done = cache.join("sysroot").join(&name);
    if done.join(".complete").exists() {
        return Ok(done);
    }
    let at = || format!("sysroot {}", done.display());
    let temporary = cache
        .join("sysroot")
        .join(format!(".{name}.{}", std::process::id()));
    fs::create_dir_all(&temporary).with_context(at)?;
    let tree = tree()?;
    for (path, node) in tree.iter().filter(|(path, _)| *path != "/") {
        let to = temporary.join(&path[1..]);
        match &node.kind {
            Kind::Dir => fs::create_dir_all(&to).with_context(at)?,
            Kind::File(data) => fs::write(&to, data).with_context(at)?,
            Kind::Symlink(target) => std::os::unix::fs::symlink(target, &to).with_context(at)?,
            Kind::Hardlink(target) => {
                fs::hard_link(temporary.join(&target[1..]), &to).with_context(at)?;
            }
            _ => {}
        }
    }
    fs::write(temporary.join(".complete"), "").with_context(at)?;
    if let Err(error) = fs::rename(&temporary, &done) {
        // Another build may have been first; its tree is the same.
        fs::remove_dir_all(&temporary).with_context(at)?;
        if !done.join(".complete").exists() {
            return Err(error).with_context(at);
        }
    }
    Ok(done)
}

/// Compiles `appliance` (dynamic) and `stage1` (static) of the workspace.
///
/// # Errors
/// No cargo or no C compiler on this machine, or a compilation that fails (its output is shown).
pub(super) fn compile(
    workspace: &Path,
    sysroot: &Path,
    target_dir: &Path,
    clock: i64,
) -> Result<Binaries> {
    fs::create_dir_all(target_dir).with_context(|| target_dir.display().to_string())?;
    let target_dir = fs::canonicalize(target_dir)?;
    let workspace = fs::canonicalize(workspace)?;
    let wrapper = write_wrapper(&workspace, sysroot, &target_dir)?;
    let cargo = |profile: &str, package: &str, flags: &str| -> Result<()> {
        let mut command = Command::new("cargo");
        command
            .current_dir(&workspace)
            .args(["build", "--locked", "--quiet", "--target", TARGET])
            .args(["--profile", profile, "--package", package, "--bin", package])
            .arg("--target-dir")
            .arg(&target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env_remove("RUSTFLAGS")
            .env("RUSTC_WRAPPER", &wrapper)
            .env("CARGO_INCREMENTAL", "0")
            .env("SOURCE_DATE_EPOCH", clock.to_string())
            // The crate cc splits flags at spaces otherwise, also those of a folder's name.
            .env("CC_SHELL_ESCAPED_FLAGS", "1")
            .env(
                "CFLAGS_x86_64_unknown_linux_gnu",
                cflags(&workspace, sysroot)?,
            );
        // Under `cargo run` these are imagegen's own, and ring's build script asks for them: left in,
        // a build by `cargo run` after one without it would compile everything again.
        for (name, _) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b"CARGO_PKG_") || bytes.starts_with(b"CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        let status = command.status().context(
            "cargo did not start: install Rust (rustup), or name prebuilt programs by --binaries",
        )?;
        if !status.success() {
            bail!("cargo build of {package} failed ({status}); its messages stand above");
        }
        Ok(())
    };
    cargo("release", "appliance", "")?;
    cargo("stage1", "stage1", "-Ctarget-feature=+crt-static")?;
    let read = |profile: &str, name: &str| -> Result<Bytes> {
        let path = target_dir.join(TARGET).join(profile).join(name);
        Ok(fs::read(&path)
            .with_context(|| path.display().to_string())?
            .into())
    };
    Ok(Binaries {
        appliance: read("release", "appliance")?,
        stage1: read("stage1", "stage1")?,
        compiler: compiler()?,
        crates: crates(&workspace)?,
    })
}

/// What `cargo tree` says of the programs' crates, ours left out.
fn crates(workspace: &Path) -> Result<Vec<Crate>> {
    let output = Command::new("cargo")
        .current_dir(workspace)
        .args([
            "tree",
            "--locked",
            "--package",
            "appliance",
            "--package",
            "stage1",
        ])
        .args([
            "--target", TARGET, "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}",
        ])
        .output()
        .context("cargo tree did not start")?;
    ensure!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    // `serde v1.0.229|MIT OR Apache-2.0`; a path behind the version marks a crate of ours.
    let mut found: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (package, license) = line.split_once('|')?;
            let (name, version) = package.split_once(" v")?;
            let plain = !version.contains(' ') || version.ends_with("(proc-macro)");
            let version = version.split(' ').next()?;
            let license = license.trim().trim_end_matches(" (*)");
            plain.then_some((name, version, license))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let owned = |(name, version, license): (&str, &str, &str)| Crate {
        name: name.into(),
        version: version.into(),
        license: (!license.is_empty()).then(|| license.into()),
    };
    Ok(found.into_iter().map(owned).collect())
}

/// Flags for C code in dependencies (ring), quoted for a shell: see `CC_SHELL_ESCAPED_FLAGS`.
fn cflags(workspace: &Path, sysroot: &Path) -> Result<String> {
    Ok([
        shell_word(&format!("--sysroot={}", sysroot.display())),
        "-g0".into(),
        shell_word(&format!(
            "-ffile-prefix-map={}=/cargo",
            cargo_home()?.display()
        )),
        shell_word(&format!(
            "-ffile-prefix-map={}=/larder",
            workspace.display()
        )),
    ]
    .join(" "))
}

/// Quoted, so that a shell takes it for one word as it is.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// A rustc wrapper that adds what depends on this checkout: path remapping for every crate, and
/// the sysroot for what is linked for the image (not for build scripts, which run here).
fn write_wrapper(workspace: &Path, sysroot: &Path, dir: &Path) -> Result<PathBuf> {
    let path = dir.join("rustc-wrapper");
    let quote = |path: &Path| shell_word(&path.display().to_string());
    let text = format!(
        "#!/bin/sh\nrustc=$1; shift\n\
         set -- \"$@\" --remap-path-prefix {}=/larder --remap-path-prefix {}=/cargo\n\
         case \" $* \" in *\" --target \"*) set -- \"$@\" -C link-arg=--sysroot={};; esac\n\
         exec \"$rustc\" \"$@\"\n",
        quote(workspace),
        quote(&cargo_home()?),
        quote(sysroot),
    );
    // Cargo asks the wrapper's time stamp: leave an equal one alone.
    if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

/// Names the compilers: rustc's release and commit, the C compiler's first line.
fn compiler() -> Result<String> {
    let first = |program: &str, args: &[&str]| -> Result<String> {
        let output = Command::new(program)
            .args(args)
            .output()
            .with_context(|| format!("{program} did not start"))?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or("")
            .to_string())
    };
    Ok(format!(
        "{}; {}",
        first("rustc", &["--version"])?,
        first("cc", &["--version"])?
    ))
}
