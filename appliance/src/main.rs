//! The one binary of the appliance: a subcommand is a service, or a step of the boot.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cache;
mod files;
mod logging;

/// What runs inside a Larder image: each command is a service or a step of the boot.
///
/// systemd starts them; running one by hand is for development and for looking into trouble.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Cache(cache::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start();
    let outcome = match arguments.command {
        Command::Cache(arguments) => cache::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
