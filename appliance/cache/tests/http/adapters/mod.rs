//! Other clients than Tuist's.

mod bazel;
mod keyed;
mod nx;
mod overload;
mod plain;
mod sccache;
mod turborepo;

/// The base of the project of most tests.
pub(crate) const BASE: &str = "/cache/acme/app";
