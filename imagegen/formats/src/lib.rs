//! File formats that the image is made of, one module each.
pub mod deb;
#[cfg(test)]
mod fuzzing;
pub mod inflate;
pub mod tree;
