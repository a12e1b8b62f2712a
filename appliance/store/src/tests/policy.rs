//! The policy of eviction beside LRU, simulated on a build-like trace (a model: facts of this project measured that
//! recency wins there, while policies that win on Zipf lose).

use std::collections::{HashMap, VecDeque};

use super::trace::{lru, trace};

/// Objects from this length on have files of their own, which are not written again.
const LARGE: u64 = 1 << 20;

/// A segment: its number, object and bytes of each record, bytes in all.
type Simulated = (u64, Vec<(u64, u64)>, u64);

/// Hit ratio of the store's rule, and bytes written again for each new one: segments of a 64th, the
/// oldest goes, what was used within the last quarter turn is written again, three quarters of a
/// segment for each one that goes.
fn ring(requests: &[(u64, u64)], capacity: u64) -> (f64, f64) {
    struct Place {
        segment: u64,
        used_at: u64,
    }
    let grain = capacity / 64;
    let mut index: HashMap<u64, Place> = HashMap::new();
    let mut log: VecDeque<Simulated> = VecDeque::from([(0, Vec::new(), 0)]);
    let (mut written, mut new, mut copied, mut hits) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut allowance = 0;
    for (object, bytes) in requests {
        // As fine as epochs are.
        let epoch = written / grain * grain;
        if let Some(place) = index.get_mut(object) {
            hits += 1;
            place.used_at = epoch;
            continue;
        }
        (new, written) = (new + bytes, written + bytes);
        let mut append = vec![(*object, *bytes, epoch)];
        while let Some((object, bytes, used_at)) = append.pop() {
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
            allowance = (allowance + grain / 4 * 3).min(2 * grain);
            for (object, bytes) in entries {
                let Some(place) = index.get(&object).filter(|place| place.segment == oldest) else {
                    continue;
                };
                let copy = if bytes < LARGE { bytes } else { 0 };
                if place.used_at + capacity / 4 >= written && copy <= allowance {
                    allowance -= copy;
                    (copied, written) = (copied + copy, written + copy);
                    append.push((object, bytes, place.used_at));
                } else {
                    index.remove(&object);
                }
            }
        }
    }
    (
        hits as f64 / requests.len() as f64,
        copied as f64 / new as f64,
    )
}

#[test]
fn the_ring_is_no_worse_than_lru_from_a_tenth_up() {
    let requests = trace(if super::all() { 1 } else { 8 }, 1 << 40);
    let objects: HashMap<u64, u64> = requests.iter().copied().collect();
    let footprint: u64 = objects.values().sum();
    println!("{} requests, {} MB", requests.len(), footprint >> 20);
    for percent in [5, 10, 20, 40] {
        let capacity = footprint / 100 * percent;
        let (lru, (ring, copied)) = (lru(&requests, capacity), ring(&requests, capacity));
        println!(
            "{percent:3} %: LRU {lru:.4}, ring {ring:.4}, {copied:.2} bytes copied for each new one"
        );
        if percent >= 10 {
            // As far as the ratio is given.
            assert!(ring >= lru - 0.0005, "{percent} %: {ring} beside {lru}");
            assert!(copied <= 0.3, "{percent} %: {copied}");
        }
    }
}
