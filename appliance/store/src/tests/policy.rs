//! The policy of eviction beside LRU, simulated on a build-like trace (a model: facts of this project measured that
//! recency wins there, while policies that win on Zipf lose).
//!
//! 21 days of a project: base artifacts of which a fiftieth changes every day, branches with artifacts of their
//! own that are built a few times within hours and then never again, and one-offs.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::disk::sim::Dice;

/// Requests: object and its length.
fn trace(base: u64, heads: u64, seed: u64) -> Vec<(u64, u64)> {
    let mut dice = Dice(seed);
    let length = |object: u64| {
        let roll = crate::format::mix(object);
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
    for _ in 0..21 {
        for _ in 0..base / 50 {
            current[dice.below(base) as usize] = next;
            next += 1;
        }
        // Builds of a day, in the order of their hour.
        let mut builds: Vec<(u64, u64, u64)> = Vec::new();
        for _ in 0..heads {
            let (own, count) = (next, 150 + dice.below(150));
            next += count;
            let hour = dice.below(1000);
            for build in 0..2 + dice.below(7) {
                builds.push((hour + build * 30, own, count));
            }
        }
        builds.sort_unstable();
        for (_, own, count) in builds {
            requests.extend((own..own + count).map(|object| (object, length(object))));
            let (from, run) = (dice.below(base), 300 + dice.below(1500).min(base / 2));
            for at in from..from + run {
                let object = current[(at % base) as usize];
                requests.push((object, length(object)));
            }
            for _ in 0..30 {
                requests.push((next, length(next)));
                next += 1;
            }
        }
    }
    requests
}

/// Hit ratio of LRU by bytes.
fn lru(requests: &[(u64, u64)], capacity: u64) -> f64 {
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

/// A segment: its number, object and bytes of each record, bytes in all.
type Simulated = (u64, Vec<(u64, u64)>, u64);

/// Hit ratio of the store's rule, and bytes written again for each new one: segments of a 64th, the
/// oldest goes, what was used within the last quarter turn is written again.
fn ring(requests: &[(u64, u64)], capacity: u64) -> (f64, f64) {
    struct Place {
        segment: u64,
        used_at: u64,
    }
    let grain = capacity / 64;
    let mut index: HashMap<u64, Place> = HashMap::new();
    let mut log: VecDeque<Simulated> = VecDeque::from([(0, Vec::new(), 0)]);
    let (mut written, mut new, mut hits) = (0_u64, 0_u64, 0_u64);
    for (object, bytes) in requests {
        // As fine as epochs are.
        let epoch = written / grain * grain;
        if let Some(place) = index.get_mut(object) {
            hits += 1;
            place.used_at = epoch;
            continue;
        }
        new += bytes;
        let mut append = vec![(*object, *bytes, epoch)];
        while let Some((object, bytes, used_at)) = append.pop() {
            written += bytes;
            let (segment, entries, weight) = log.back_mut().expect("a segment");
            index.insert(
                object,
                Place {
                    segment: *segment,
                    used_at,
                },
            );
            entries.push((object, bytes));
            *weight += bytes;
            if *weight < grain {
                continue;
            }
            let next = *segment + 1;
            log.push_back((next, Vec::new(), 0));
            let used: u64 = log.iter().map(|(_, _, weight)| weight).sum();
            if used + 2 * grain <= capacity {
                continue;
            }
            let (oldest, entries, _) = log.pop_front().expect("the oldest");
            for (object, bytes) in entries {
                let Some(place) = index.get(&object).filter(|place| place.segment == oldest) else {
                    continue;
                };
                if place.used_at + capacity / 4 >= written {
                    append.push((object, bytes, place.used_at));
                } else {
                    index.remove(&object);
                }
            }
        }
    }
    let copied = written - new;
    (
        hits as f64 / requests.len() as f64,
        copied as f64 / new as f64,
    )
}

#[test]
#[ignore = "does not hold yet: 0.936 beside 0.938 at 10 % of the short trace"]
fn the_ring_is_no_worse_than_lru_from_a_tenth_up() {
    let (base, heads) = if super::all() {
        (12_000, 80)
    } else {
        (6000, 16)
    };
    let requests = trace(base, heads, 1);
    let footprint: u64 = requests
        .iter()
        .copied()
        .collect::<HashMap<_, _>>()
        .values()
        .sum();
    println!("{} requests, {} MB", requests.len(), footprint >> 20);
    for percent in [5, 10, 20] {
        let capacity = footprint / 100 * percent;
        let (lru, (ring, copied)) = (lru(&requests, capacity), ring(&requests, capacity));
        println!(
            "{percent:3} %: LRU {lru:.4}, ring {ring:.4}, {copied:.2} bytes copied for each new one"
        );
        if percent >= 10 {
            assert!(ring >= lru - 0.002, "{percent} %: {ring} beside {lru}");
            assert!(copied <= 0.3, "{percent} %: {copied}");
        }
    }
}
