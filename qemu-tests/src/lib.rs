//! End-to-end tests that boot the image that ships, and their harness.

pub mod nbd;
pub mod recorder;
