//! A build-like trace of requests, and LRU on it; the benchmark uses it too.
//!
//! 21 days of a project: base artifacts of which a fiftieth changes every day, branches with artifacts of their
//! own that are built a few times within hours and then never again, and one-offs.

use std::collections::{BTreeMap, HashMap};

/// SplitMix64 of a number: random enough, and the same every time.
fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Requests: object and its length. `scale`: by how much each count of objects is smaller than in the trace that
/// was measured; the number of builds is the same, so that as many of them fit between two uses of an object.
pub(crate) fn trace(scale: u64, seed: u64) -> Vec<(u64, u64)> {
    let (base, heads) = (12_000 / scale, 80);
    let mut state = seed;
    let mut below = |limit: u64| {
        state = state.wrapping_add(1);
        mix(state) % limit.max(1)
    };
    let length = |object: u64| {
        let roll = mix(object);
        let (kind, rest) = (roll % 1000, roll >> 10);
        match kind {
            0..800 => 4096 + rest % 12_288,
            800..845 => 16_384 + rest % 49_152,
            845..995 => 65_536 + rest % 983_040,
            _ => 10 << 20,
        }
    };
    let mut current: Vec<u64> = (0..base).collect();
    let mut next = base;
    let mut requests = Vec::new();
    let mut ask = |object: u64| requests.push((object, length(object)));
    for _ in 0..21 {
        for _ in 0..base / 50 {
            current[below(base) as usize] = next;
            next += 1;
        }
        // Builds of a day, in the order of their hour.
        let mut builds: Vec<(u64, u64, u64)> = Vec::new();
        for _ in 0..heads {
            let (own, count) = (next, (150 + below(150)) / scale);
            next += count;
            let hour = below(1000);
            for build in 0..2 + below(7) {
                builds.push((hour + build * 30, own, count));
            }
        }
        builds.sort_unstable();
        for (_, own, count) in builds {
            (own..own + count).for_each(&mut ask);
            let (from, run) = (below(base), (300 + below(1500)) / scale);
            (from..from + run).for_each(|at| ask(current[(at % base) as usize]));
            let once = 30 / scale;
            (next..next + once).for_each(&mut ask);
            next += once;
        }
    }
    requests
}

/// Hit ratio of LRU by bytes.
pub(crate) fn lru(requests: &[(u64, u64)], capacity: u64) -> f64 {
    let (mut used, mut hits) = (0, 0_u64);
    let mut order: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut last: HashMap<u64, usize> = HashMap::new();
    for (now, (object, bytes)) in requests.iter().enumerate() {
        match last.insert(*object, now) {
            Some(before) => {
                hits += 1;
                order.remove(&before);
            }
            None => used += bytes,
        }
        order.insert(now, (*object, *bytes));
        while used > capacity {
            let Some((_, (object, bytes))) = order.pop_first() else {
                break;
            };
            last.remove(&object);
            used -= bytes;
        }
    }
    hits as f64 / requests.len() as f64
}
