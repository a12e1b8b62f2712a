//! `appliance secrets`: the fetcher of secrets, and what people do with it.

mod enrol;
mod serve;
mod status;

use clap::Subcommand;

/// Fetch secrets and hand each to the one unit that it is for.
///
/// Without a command this is the service: what it fetches, from where and for whom is said by
/// /etc/larder/secrets.toml; units get values by LoadCredential=NAME:/run/larder/secrets.sock.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Arguments),
    Enrol(enrol::Arguments),
}

/// Runs a command, or the service until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        None => serve::run(&arguments.serve),
        Some(Command::Status(arguments)) => status::run(arguments),
        Some(Command::Enrol(arguments)) => enrol::run(arguments),
    }
}
