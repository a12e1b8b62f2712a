//! File formats that the image is made of, one module each.
pub mod cpio;
pub mod deb;
pub mod depmod;
pub mod elf;
pub mod ext4;
pub mod fat;
#[cfg(test)]
mod fuzzing;
pub mod gpt;
pub mod inflate;
pub mod ldcache;
pub mod pcr;
pub mod pe;
pub mod region;
pub mod tree;
pub mod verity;
