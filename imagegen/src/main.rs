//! `imagegen`: from a folder of plain configuration to a bootable, verified disk image.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use imagegen::{build, check, diff, flash, inspect, lock, run, token, verify};

/// Builds, checks, looks into, boots and writes disk images of Larder cache servers.
///
/// A folder of plain configuration (configs/) becomes one image for a whole fleet: `check` it,
/// `lock` its Debian packages, `build` the image, `run` it in QEMU, `flash` it to a disk.
#[derive(Debug, Parser)]
#[command(
    name = "imagegen",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Lock(lock::LockArgs),
    Build(build::BuildArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Diff(diff::DiffArgs),
    Run(run::RunArgs),
    Flash(flash::FlashArgs),
    Secrets(token::SecretsArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check(args) => check::run(args),
        Command::Lock(args) => lock::run(args),
        Command::Build(args) => build::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Flash(args) => flash::run(args),
        Command::Secrets(args) => token::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Run(args) => run::run(args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
