//! What is wrong in a file though its form is right.

mod across;
mod cache;
mod filesystem;
mod firewall;
mod fleet;
mod image;
mod network;
mod shapes;
mod shipper;
mod system;

pub(crate) use across::across;
