//! `imagegen`: from configs/ to a bootable image.
fn main() {}
