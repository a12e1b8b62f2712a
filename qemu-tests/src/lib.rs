//! End-to-end tests that boot the image that ships, and their harness.
//!
//! A test is a [`scenario`]: a [`Setup`] says what is booted, a function does things to the
//! [`TestMachine`], several properties a boot by [`TestMachine::check`]. Waits end when nothing
//! happens any more, not after a time: a busy host is slow, not broken. Every console is searched
//! for what no healthy machine shows ([`console::PATTERNS`]).
//!
//! [`recorder`] is the disk for power cuts and errors.

pub mod console;
pub mod disk;
mod guest;
mod imagegen;
pub mod lan;
mod machine;
pub mod nbd;
pub mod recorder;
mod scenario;
mod setup;
mod ssh;

pub use imagegen::{build_image, imagegen};
pub use machine::TestMachine;
pub use scenario::{full_matrix, scenario};
pub use setup::{Setup, shipped_image, source_tree};
