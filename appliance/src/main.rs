//! The one binary that carries the daemons of the appliance as subcommands.

mod announce;
mod cas;
mod esp;
mod grow;
mod health;
mod loopback;
mod wait;

use clap::{Parser, Subcommand};

/// The daemons and duties of a Larder machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount a file system of this machine
    #[command(subcommand)]
    Mount(Mount),
    /// Take into use what the disk of /cas has grown by, while it is mounted
    Grow(grow::Args),
    /// Wait until the service answers, then mark this boot as healthy
    Health(health::Args),
}

#[derive(Subcommand)]
enum Mount {
    /// Check the EFI system partition and mount it at /boot
    Esp(esp::Args),
    /// Find, make, check, grow and mount /cas
    Cas(cas::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Mount(Mount::Esp(args)) => esp::run(args),
        Command::Mount(Mount::Cas(args)) => cas::run(args),
        Command::Grow(args) => grow::run(args),
        Command::Health(args) => health::run(args),
    }
}
