//! QEMU virtual machines: what `imagegen run` and the end-to-end tests boot images in.
//!
//! A [`Machine`] says what the hardware is; [`Machine::start`] gives a [`Running`] one, which ends
//! with its value, and with this process however that ends. Every machine starts paused; its
//! forwards are made, its overlays sized and its links cut through QMP, then it runs. So a taken
//! port is an answer and no race.
//!
//! What this crate does not do: other architectures, other hypervisors, snapshots of memory,
//! graphics, TPMs.

mod accel;
mod args;
mod credential;
mod disk;
mod error;
mod firmware;
pub mod interrupt;
mod machine;
mod nic;
mod process;
mod qmp;
mod running;
mod serial;
mod sparse;

pub use accel::{Accel, AccelChoice, ProbeAnswer, choose_accel};
pub use credential::{Credential, Way};
pub use disk::{Bus, Disk, Source};
pub use error::Error;
pub use firmware::{Firmware, OvmfFiles, find_ovmf};
pub use machine::{Kernel, Machine, WatchdogAction};
pub use nic::{Forward, HostPort, Nic};
pub use process::{Usage, find_program, spawn_tied};
pub use qmp::{Event, Qmp};
pub use running::{Forwarded, Running};
pub use serial::{Found, Patience};
pub use sparse::{for_each_extent, sparse_copy};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
