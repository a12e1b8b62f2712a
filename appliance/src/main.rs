//! The one binary of the appliance: a subcommand is a service, or a step of the boot.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod addresses;
mod announce;
mod auth;
mod cache;
mod cas;
mod console;
mod doctor;
mod esp;
mod files;
mod grow;
mod health;
mod hostkey;
mod identity;
mod logging;
mod loopback;
mod oncall;
mod panel;
mod secrets;
mod shipper;
mod sshkey;
mod store;
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
    Identity(identity::Arguments),
    Hostkey(hostkey::Arguments),
    /// Mount a file system of this machine.
    #[command(subcommand)]
    Mount(Mount),
    Grow(grow::Arguments),
    Cache(cache::Arguments),
    Doctor(doctor::Arguments),
    #[command(subcommand)]
    Auth(auth::Command),
    Secrets(secrets::Arguments),
    Health(health::Arguments),
    /// Logs to Loki, metrics to Prometheus.
    #[command(subcommand)]
    Shipper(shipper::Command),
    Console(console::Arguments),
    #[command(subcommand)]
    Store(store::Command),
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
        Command::Identity(arguments) => identity::run(&arguments),
        Command::Hostkey(arguments) => hostkey::run(&arguments),
        Command::Cache(arguments) => cache::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Auth(command) => auth::run(&command),
        Command::Secrets(arguments) => secrets::run(&arguments),
        Command::Mount(Mount::Esp(arguments)) => esp::run(&arguments),
        Command::Mount(Mount::Cas(arguments)) => cas::run(&arguments),
        Command::Grow(arguments) => grow::run(&arguments),
        Command::Shipper(command) => shipper::run(&command),
        Command::Health(arguments) => health::run(&arguments),
        Command::Console(arguments) => console::run(&arguments),
        Command::Store(command) => store::run(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
