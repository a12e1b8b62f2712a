//! The one binary that carries the daemons of the appliance as subcommands.
fn main() {}
