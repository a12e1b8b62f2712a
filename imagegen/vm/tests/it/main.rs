//! Machines that really run, on guests of a few instructions.

// Helpers of tests fail a test by panicking, as the tests themselves do.
#![allow(clippy::unwrap_used)]

mod endings;
mod guest;
mod machines;
