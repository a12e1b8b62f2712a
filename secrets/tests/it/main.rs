//! Integration tests: the public face of the crate, against doubles of the servers.

// Tests, helpers included, fail by panicking.
#![allow(clippy::unwrap_used)]

mod age;
mod connect;
mod fetcher;
mod fuzz;
mod machine;
mod manifest;
#[cfg(feature = "oracle")]
mod oracle;
mod reference;
mod service_account;
mod shop;
mod socket;
mod support;
mod toxic;
mod vault;
mod whole;
