//! Test help: random and mutated inputs for the `fuzz` functions of the parsers.

use std::time::{Duration, Instant};

/// A small deterministic generator (xorshift64*), so that a failure repeats.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit` (which is not 0).
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// Calls `target` with random bytes and with damaged copies of `seeds` until `time` is over.
pub(crate) fn mutate_for(time: Duration, seeds: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let mut random = Random::new(0x1a4d_e400);
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < time || rounds < 50 {
        rounds += 1;
        let mut input = if seeds.is_empty() || random.below(8) == 0 {
            let length = random.below(4096);
            (0..length).map(|_| random.next() as u8).collect()
        } else {
            seeds[random.below(seeds.len())].clone()
        };
        for _ in 0..random.below(8) {
            if input.is_empty() {
                break;
            }
            let at = random.below(input.len());
            match random.below(6) {
                0 => input[at] = random.next() as u8,
                1 => input[at] ^= 1 << random.below(8),
                2 => input.truncate(at),
                3 => {
                    let end = (at + 1 + random.below(8)).min(input.len());
                    input[at..end].fill(0xff);
                }
                4 => {
                    let end = (at + 1 + random.below(64)).min(input.len());
                    let piece = input[at..end].to_vec();
                    let to = random.below(input.len());
                    input.splice(to..to, piece);
                }
                _ => {
                    let end = (at + 1 + random.below(64)).min(input.len());
                    input.drain(at..end);
                }
            }
        }
        target(&input);
    }
}
