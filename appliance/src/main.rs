//! The one binary of the appliance: a subcommand is a service, or a step of the boot.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod announce;
mod cache;
mod cas;
mod esp;
mod files;
mod grow;
mod health;
mod logging;
mod loopback;
mod wait;

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
    /// Mount a file system of this machine.
    #[command(subcommand)]
    Mount(Mount),
    Grow(grow::Arguments),
    Health(health::Arguments),
}

#[derive(Debug, Subcommand)]
enum Mount {
    Esp(esp::Arguments),
    Cas(cas::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start();
    let outcome = match arguments.command {
        Command::Cache(arguments) => cache::run(&arguments),
        Command::Mount(Mount::Esp(arguments)) => esp::run(&arguments),
        Command::Mount(Mount::Cas(arguments)) => cas::run(&arguments),
        Command::Grow(arguments) => grow::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
