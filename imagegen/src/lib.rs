//! Builds, checks, inspects and writes Larder images.

pub mod image;
pub mod layout;
pub mod manifest;
pub mod run;
mod size;
