//! Builds, checks, inspects and writes Larder images.

pub mod layout;
pub mod run;
