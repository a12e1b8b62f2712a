//! Builds, checks, inspects and writes Larder images.

pub mod build;
pub mod check;
pub mod diff;
pub mod flash;
mod fleet;
pub mod image;
pub mod inspect;
pub mod layout;
pub mod lock;
pub mod manifest;
mod output;
pub mod rootfs;
pub mod run;
mod size;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod token;
pub mod verify;
