//! The generator, as `make image` runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::source_tree;

/// `imagegen`, compiled as the one that has built the image that ships: what is compiled already is
/// not compiled again, and an optimised build of an image is ten times as fast.
///
/// `$LARDER_IMAGEGEN` is a program that is there already, for whoever works on the tests.
pub fn imagegen() -> Command {
    if let Some(program) = std::env::var_os("LARDER_IMAGEGEN") {
        let mut command = Command::new(program);
        command.current_dir(source_tree());
        return command;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["run", "--quiet", "--release", "--package", "imagegen", "--"])
        .current_dir(source_tree());
    command
}

/// Builds an image into the folder `out`, uncompressed, with more arguments. Gives its `larder.raw`.
///
/// `$LARDER_BINARIES` is a folder of programs that are there already, for whoever works on the
/// tests.
///
/// # Errors
/// What `imagegen build` says.
pub fn build_image(out: &Path, arguments: impl FnOnce(&mut Command)) -> Result<PathBuf> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut command = imagegen();
    command.args(["build", "--no-compress", "--out"]).arg(out);
    if let Some(binaries) = std::env::var_os("LARDER_BINARIES") {
        command.arg("--binaries").arg(binaries);
    }
    arguments(&mut command);
    let output = command.output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the image is not built: {said}");
    Ok(out.join("larder.raw"))
}
