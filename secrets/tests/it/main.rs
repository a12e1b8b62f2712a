//! Integration tests: the public face of the crate, against doubles of the servers.

mod manifest;
mod reference;
