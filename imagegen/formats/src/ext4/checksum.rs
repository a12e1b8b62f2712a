//! The checksum of ext4's `metadata_csum`: CRC-32C without the final inversion, chained.

/// Goes on with `data` from the checksum `seed`.
pub(super) fn crc(seed: u32, data: &[u8]) -> u32 {
    // The crate inverts before and after, as RFC 3720 does; ext4 keeps the bare register.
    !crc32c::crc32c_append(!seed, data)
}

/// The seed of all checksums of a file system: that of its UUID.
pub(super) fn of_uuid(uuid: &[u8; 16]) -> u32 {
    crc(!0, uuid)
}

/// The seed of all checksums of one inode (number and generation).
pub(super) fn of_inode(fs_seed: u32, inode: u32, generation: u32) -> u32 {
    crc(
        crc(fs_seed, &inode.to_le_bytes()),
        &generation.to_le_bytes(),
    )
}
