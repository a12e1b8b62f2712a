//! `inspect`, `verify` and `diff` on composed images.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../compose/mod.rs"]
mod compose;
mod diff;
mod help;
mod hostile;
mod inspect;
mod verify;
