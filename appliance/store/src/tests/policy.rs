//! The policy of eviction beside LRU, simulated on a build-like trace (a model: facts of this project measured that
//! recency wins there, while policies that win on Zipf lose).
//!
//! 21 days of a project: base artifacts of which a fiftieth changes every day, branches with artifacts of their
//! own that are built a few times within hours and then never again, and one-offs.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::disk::sim::Dice;

/// Objects from this length on have files of their own, which are not written again.
const LARGE: u64 = 1 << 20;

/// Requests: object and its length. `scale`: by how much each count of objects is smaller than in the trace that
/// was measured; the number of builds is the same, so that as many of them fit between two uses of an object.
fn trace(scale: u64, seed: u64) -> Vec<(u64, u64)> {
    let (base, heads) = (12_000 / scale, 80);
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
    let mut ask = |object: u64| requests.push((object, length(object)));
    for _ in 0..21 {
        for _ in 0..base / 50 {
            current[dice.below(base) as usize] = next;
            next += 1;
        }
        // Builds of a day, in the order of their hour.
        let mut builds: Vec<(u64, u64, u64)> = Vec::new();
        for _ in 0..heads {
            let (own, count) = (next, (150 + dice.below(150)) / scale);
            next += count;
            let hour = dice.below(1000);
            for build in 0..2 + dice.below(7) {
                builds.push((hour + build * 30, own, count));
            }
        }
        builds.sort_unstable();
        for (_, own, count) in builds {
            (own..own + count).for_each(&mut ask);
            let (from, run) = (dice.below(base), (300 + dice.below(1500)) / scale);
            (from..from + run).for_each(|at| ask(current[(at % base) as usize]));
            let once = 30 / scale;
            (next..next + once).for_each(&mut ask);
            next += once;
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
