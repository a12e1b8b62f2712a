//! Builds, checks, inspects and writes Larder images.

pub mod run;
