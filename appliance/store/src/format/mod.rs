//! What lies on the disk: see `FORMAT.md`. Parsers take bytes and believe nothing before its CRC.

pub(crate) mod checkpoint;
pub(crate) mod cleans;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod superblock;

/// The version of the format that is written and read.
pub(crate) const VERSION: u32 = 1;
/// Records begin and end at multiples of this.
pub(crate) const ALIGN: u64 = 16;
/// Bytes of a body that one checksum covers.
pub(crate) const BLOCK: usize = 64 * 1024;

/// The next multiple of `to`, a power of two.
pub(crate) fn align(value: u64, to: u64) -> u64 {
    value.next_multiple_of(to)
}

/// Takes numbers off the front of bytes; every method fails at their end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes `length` bytes that must be zero.
    pub(crate) fn zeros(&mut self, length: usize) -> Option<()> {
        let zero = self.bytes(length)?.iter().all(|byte| *byte == 0);
        zero.then_some(())
    }
}

/// Fills `bytes` up with zeros to `length` bytes, then puts their CRC behind them.
pub(crate) fn seal(bytes: &mut Vec<u8>, length: usize) {
    debug_assert!(bytes.len() <= length);
    bytes.resize(length, 0);
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// What [`seal`] sealed, if the CRC behind it checks; `bytes` may be longer than `length + 4`.
pub(crate) fn unseal(bytes: &[u8], length: usize) -> Option<Fields<'_>> {
    let (body, mut rest) = bytes
        .split_at_checked(length)
        .map(|(a, b)| (a, Fields(b)))?;
    (rest.u32()? == crc32c::crc32c(body)).then_some(Fields(body))
}

/// SplitMix64's finaliser: spreads the bits of a number.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
