//! The machine and its disks: every bus, one disk and two, growth, and disks that are dead, missing,
//! or somebody else's.

mod buses;
mod incidents;
mod second;
mod troubled;
