//! What the configuration becomes: files of the image, and files for networkd.

mod firewall;
mod image;
mod network;

pub use image::{File, image_files};
pub use network::network_files;
