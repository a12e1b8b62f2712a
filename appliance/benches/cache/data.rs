//! The objects: random bytes that follow from a number.

use ring::digest;

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Object {
    pub(crate) number: u64,
    /// In bytes.
    pub(crate) length: usize,
}

impl Object {
    /// Its id: 64 hex digits, as a hash of it would look.
    pub(crate) fn id(self) -> String {
        let word = |at: u64| mix((self.number.wrapping_mul(4) + at) ^ ((self.length as u64) << 32));
        (0..4).map(|at| format!("{:016x}", word(at))).collect()
    }
}

/// SplitMix64's mixing step.
pub(crate) fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// The bytes of an object.
pub(crate) fn bytes(object: Object) -> Vec<u8> {
    let seed = mix(object.number ^ object.length as u64);
    let words = object.length.div_ceil(8) as u64;
    let mut bytes: Vec<u8> = (0..words)
        .flat_map(|at| mix(seed.wrapping_add(at)).to_le_bytes())
        .collect();
    bytes.truncate(object.length);
    bytes
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut array = [0; 32];
    array.copy_from_slice(digest.as_ref());
    array
}

/// The order in which `count` objects are asked for: evenly, or by Zipf's law with exponent 1.
pub(crate) fn order(count: u64, zipf: bool) -> Vec<u64> {
    const LENGTH: u64 = 1 << 20;
    if !zipf {
        return (0..LENGTH).map(|at| mix(at) % count).collect();
    }
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    (0..LENGTH)
        .map(|at| {
            let drawn = (mix(at) >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            // Neighbours in rank are none on the disk.
            mix(sums.partition_point(|sum| *sum < drawn) as u64) % count
        })
        .collect()
}
