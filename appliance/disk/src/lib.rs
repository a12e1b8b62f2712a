//! Disks as the appliance meets them: partition tables, superblocks, the first mkfs, fsck with a
//! deadline, growth, mounts.
//!
//! Shared by `stage1` (PID 1 of the initramfs, static) and by the units of the running system
//! (`appliance mount cas`, `appliance grow`, ...), so that both take the same decisions. Everything
//! that reads or writes a disk goes through [`ReadAt`] and [`Storage`]: tests run it on plain files
//! and on a recorder that cuts the power at every write.
//!
//! Two rules hold everywhere. Nothing is ever formatted because of a read error: only what carries
//! the label [`PRISTINE`], read whole, is made anew. And nothing is overwritten unless the next
//! boot, whatever the moment of a power cut, finds either the old state or the new one.

pub mod atomic;
pub mod blank;
pub mod command;
mod crc32;
mod error;
pub mod fsck;
pub mod gpt;
pub mod grow;
mod layout;
pub mod marker;
pub mod mkfs;
pub mod mount;
pub mod probe;
pub mod settings;
mod storage;
pub mod superblock;
pub mod sysfs;

#[cfg(test)]
mod recorder;

pub use error::Error;
pub use layout::{CAS_PARTITION, LABEL_CAS, LABEL_STATE, PRISTINE, STATE_PARTITION};
pub use storage::{Device, ReadAt, Storage};

/// Sixteen random bytes as a UUID of version 4.
///
/// # Errors
///
/// The kernel's random number generator could not be read.
pub fn random_uuid() -> Result<uuid::Uuid, Error> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Fills `bytes` from the kernel's random number generator.
///
/// # Errors
///
/// The generator could not be read.
pub fn random(bytes: &mut [u8]) -> Result<(), Error> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Error::Random {
                    cause: error.into(),
                });
            }
        }
    }
    Ok(())
}
