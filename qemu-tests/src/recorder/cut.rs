//! A power cut: which of the writes are on the disk.

use super::log::Record;

/// One power cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Number of records that the disk was asked for.
    pub at: usize,
    /// Those among them that did not get to the disk, in order.
    pub lost: Vec<usize>,
    /// The last write that got there did so only with its first bytes: record and their number, a
    /// multiple of 512.
    pub torn: Option<(usize, u64)>,
}

impl Cut {
    /// After `at` records, nothing lost.
    pub fn after(at: usize) -> Cut {
        Cut {
            at,
            ..Cut::default()
        }
    }

    /// After `at` records, everything lost that need not be on the disk.
    pub fn worst(records: &[Record], at: usize) -> Cut {
        let durable = durable(records, at);
        let lost = losable(records, durable, at).collect();
        Cut {
            at,
            lost,
            torn: None,
        }
    }

    /// A random cut between the records `start` and `end`, where `start` is durable.
    pub(super) fn sample(records: &[Record], start: usize, end: usize, random: &mut Random) -> Cut {
        let at = start + 1 + random.below(end - start);
        // All ways of losing: nothing, a few, half, nearly everything.
        let odds = random.below(5);
        let mut lost = Vec::new();
        let mut last = None;
        for index in losable(records, start, at) {
            if random.below(4) < odds {
                lost.push(index);
            } else {
                last = Some(index);
            }
        }
        let torn = last.filter(|_| random.below(3) == 0).and_then(|index| {
            let Record::Write(write) = &records[index] else {
                return None;
            };
            let sectors = usize::try_from(write.length / 512).ok()?;
            (sectors > 1).then(|| (index, 512 * (1 + random.below(sectors - 1)) as u64))
        });
        Cut { at, lost, torn }
    }
}

/// Number of records up to and with the last flush before `at`.
pub(super) fn durable(records: &[Record], at: usize) -> usize {
    records[..at]
        .iter()
        .rposition(|record| *record == Record::Flush)
        .map_or(0, |flush| flush + 1)
}

/// The writes of `start..end` that a power cut may lose.
fn losable(records: &[Record], start: usize, end: usize) -> impl Iterator<Item = usize> + '_ {
    (start..end).filter(|&index| matches!(&records[index], Record::Write(write) if !write.fua))
}

/// xorshift64*: the same numbers for the same seed, on every machine.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        // Zero would stay zero.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is not zero.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % limit
    }
}
