//! QEMU virtual machines.
