//! File formats that the image is made of, one module each.
pub mod tree;
