//! Random operations, power cuts and failing fsyncs against a simple model.
//!
//! The model knows for every key what was done to it, when in the order of changes of the disk, and
//! from when on it must survive. A cut is made after every flush and at random places; what survives of the rest is
//! chosen at random. The store that opens on it must show, for every key, what the last durable
//! operation left, or what a later one that had begun made of it. Nothing else, and no wrong byte.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::*;
use crate::disk::Flush;
use crate::disk::sim::{Cut, Dice, SimDisk};
use crate::{Durability, Existing};

const KEYS: u64 = 8;

/// Something that happened to a key.
#[derive(Clone, Copy, Debug)]
struct Event {
    /// Changes of the disk before it began.
    start: usize,
    /// What the key means after it.
    state: Option<u64>,
    /// Changes of the disk after which it cannot be lost any more.
    durable: Option<usize>,
    /// Taken back, or what was shown instead, after an fsync that failed: the disk may hold either, and
    /// no later fsync decides which (FORMAT.md, durability).
    undecided: bool,
}

#[derive(Debug, Default)]
struct History {
    events: HashMap<u64, Vec<Event>>,
    lengths: HashMap<u64, usize>,
    ends: Vec<usize>,
}

impl History {
    fn push(&mut self, key: u64, event: Event) {
        self.events.entry(key).or_default().push(event);
    }

    fn current(&self, key: u64) -> Option<u64> {
        self.events.get(&key)?.last()?.state
    }

    /// All that happened so far survives.
    fn synced(&mut self, now: usize) {
        for event in self.events.values_mut().flatten() {
            if !event.undecided {
                event.durable.get_or_insert(now);
            }
        }
    }

    /// What was not durable yet was taken back.
    fn taken_back(&mut self, key: u64) {
        for event in self.events.get_mut(&key).into_iter().flatten() {
            event.undecided |= event.durable.is_none();
        }
    }

    /// Whether a key may show this after a cut.
    fn allows(&self, key: u64, cut: usize, shown: Option<u64>) -> bool {
        let Some(events) = self.events.get(&key) else {
            return shown.is_none();
        };
        let survives = |event: &Event| event.durable.is_some_and(|durable| durable <= cut);
        let last = events.iter().rposition(survives);
        let later = &events[last.map_or(0, |last| last)..];
        (last.is_none() && shown.is_none())
            || later.iter().enumerate().any(|(at, event)| {
                (event.start < cut || (last.is_some() && at == 0)) && event.state == shown
            })
    }
}

fn name(key: u64) -> Key {
    super::key(&format!("{key}"))
}

/// Does random things to a store, and notes what they mean.
async fn storm(
    seed: u64,
    durability: Durability,
    skip: Option<Flush>,
    faults: bool,
) -> (SimDisk, History) {
    let mut dice = Dice(seed << 20);
    let disk = SimDisk::new(64 << 20);
    let settings = Settings {
        durability,
        ..settings()
    };
    let clock = TestClock::at(NOW);
    disk.skip(skip);
    let mut store = open_with(&disk, settings.clone(), &clock).await;
    let mut history = History::default();
    history.ends.push(disk.now());
    let mut value = 0;
    for _ in 0..60 {
        clock.pass(Duration::from_millis(50));
        if faults && dice.below(8) == 0 {
            match dice.below(7) {
                0 => disk.fail_flush(Flush::Body),
                1 => disk.fail_flush(Flush::SegmentName),
                2 => disk.fail_flush(Flush::Footer),
                3 => disk.fail_write(dice.below(3)),
                _ => disk.fail_flush(Flush::Records),
            }
        }
        let key = dice.below(KEYS);
        let start = disk.now();
        let mut failed = false;
        match dice.below(20) {
            0..12 => {
                value += 1;
                let length = match dice.below(10) {
                    0..7 => dice.below(3000),
                    7 => 8000,
                    _ => 9000 + dice.below(60_000),
                };
                history.lengths.insert(value, length as usize);
                let existing = if dice.below(2) == 0 {
                    Existing::Keep
                } else {
                    Existing::Replace
                };
                let pinned = dice.below(8) == 0;
                let terms = Terms {
                    existing,
                    pinned,
                    ..terms()
                };
                let bytes = pattern(value, length as usize);
                let outcome = put_with(&store, &name(key), &bytes, terms).await;
                failed = outcome.is_err();
                if !matches!(outcome, Ok(Outcome::Exists)) {
                    let ack = durability == Durability::Ack && !failed;
                    let durable = ack.then(|| disk.now());
                    history.push(
                        key,
                        Event {
                            start,
                            state: Some(value),
                            durable,
                            undecided: false,
                        },
                    );
                } else {
                    assert!(history.current(key).is_some());
                }
            }
            12..14 => match store.remove(&name(key)).await {
                Ok(found) => {
                    assert_eq!(found, history.current(key).is_some());
                    if found {
                        let durable = Some(disk.now());
                        history.push(
                            key,
                            Event {
                                start,
                                state: None,
                                durable,
                                undecided: false,
                            },
                        );
                        history.synced(disk.now());
                    }
                }
                Err(_) => {
                    failed = true;
                    history.push(
                        key,
                        Event {
                            start,
                            state: None,
                            durable: None,
                            undecided: false,
                        },
                    );
                }
            },
            14 => {
                let pinned = store.pin(&name(key), dice.below(2) == 0).await;
                failed = pinned.is_err();
            }
            15 if dice.below(3) == 0 => {
                failed = store.clean("acme", "app").await.is_err();
                for key in 0..KEYS {
                    let durable = (!failed).then(|| disk.now());
                    history.push(
                        key,
                        Event {
                            start,
                            state: None,
                            durable,
                            undecided: false,
                        },
                    );
                }
            }
            16 => {
                for volume in store.volumes() {
                    match volume.checkpoint() {
                        Ok(()) => history.synced(disk.now()),
                        Err(_) => failed = true,
                    }
                }
            }
            17 if dice.below(2) == 0 => {
                // Killed: nothing is lost, and nothing is written in good order.
                drop(store);
                store = open_with(&disk, settings.clone(), &clock).await;
                failed = true;
            }
            _ => {
                for volume in store.volumes() {
                    match volume.sync(Flush::Records) {
                        Ok(()) => history.synced(disk.now()),
                        Err(_) => failed = true,
                    }
                }
            }
        }
        if failed || faults {
            // What failed may have been withdrawn; what is shown must be allowed, and goes on from there.
            store.check().await;
            for key in 0..KEYS {
                let shown = read(&store, &name(key)).await;
                let shown = known(&history, shown.as_deref()).unwrap();
                let now = disk.now();
                assert!(
                    history.allows(key, now, shown),
                    "{key} {shown:?} {:?}",
                    history.events.get(&key)
                );
                if shown != history.current(key) {
                    history.taken_back(key);
                    history.push(
                        key,
                        Event {
                            start: now,
                            state: shown,
                            durable: None,
                            undecided: true,
                        },
                    );
                }
            }
        } else if let Some(current) = history.current(key) {
            let shown = read(&store, &name(key)).await.unwrap();
            assert!(shown == pattern(current, history.lengths[&current]));
        }
        history.ends.push(disk.now());
    }
    (disk, history)
}

/// Which value these bytes are; a wrong byte is none.
fn known(history: &History, bytes: Option<&[u8]>) -> Result<Option<u64>, String> {
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let mut lengths = history.lengths.iter();
    let found = lengths
        .find(|(value, length)| **length == bytes.len() && pattern(**value, **length) == bytes);
    match found {
        Some((value, _)) => Ok(Some(*value)),
        None if bytes.is_empty() => Ok(None),
        None => Err(format!("{} wrong bytes", bytes.len())),
    }
}

/// Cuts the power at every flush and at some other places, and looks. Disks that are the same are
/// opened once: only what they may show depends on the place. How many cuts, and different disks.
async fn cuts(
    disk: &SimDisk,
    history: &History,
    seed: u64,
    samples: u64,
) -> Result<(usize, usize), String> {
    let mut dice = Dice(seed);
    let mut places = disk.flushes(0);
    places.extend((0..places.len()).map(|_| dice.below(disk.now() as u64 + 1) as usize));
    let first = history.ends[0];
    places.retain(|place| *place >= first);
    let mut count = 0;
    let mut known: HashMap<u128, Vec<Option<u64>>> = HashMap::new();
    for place in places {
        let mut kinds = vec![Cut::Flushed, Cut::All];
        kinds.extend((0..samples).map(|_| Cut::Some(dice.roll())));
        for cut in kinds {
            count += 1;
            let after = disk.cut(place, cut);
            let shown = match known.entry(after.fingerprint()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let shown = shown(&after, history).await;
                    let mut shown =
                        shown.map_err(|error| format!("cut {place} {cut:?}: {error}"))?;
                    // Opening it again must change nothing.
                    if dice.below(2) == 0 {
                        let again = self::shown(&after, history).await?;
                        if again != shown {
                            return Err(format!(
                                "cut {place} {cut:?}: opened again, it shows {again:?}, not {shown:?}"
                            ));
                        }
                        shown = again;
                    }
                    entry.insert(shown)
                }
            };
            for (key, value) in shown.iter().enumerate() {
                let key = key as u64;
                if !history.allows(key, place, *value) {
                    let events = history.events.get(&key);
                    return Err(format!(
                        "cut {place} {cut:?}: {key} shows {value:?} of {events:?}"
                    ));
                }
            }
        }
    }
    Ok((count, known.len()))
}

/// What a store that opens on a disk shows.
async fn shown(disk: &SimDisk, history: &History) -> Result<Vec<Option<u64>>, String> {
    let store = open(disk).await;
    let mut shown = Vec::new();
    for key in 0..KEYS {
        let bytes = read(&store, &name(key)).await;
        shown.push(known(history, bytes.as_deref())?);
    }
    Ok(shown)
}

#[tokio::test]
async fn power_cuts_lose_nothing_durable_and_show_nothing_wrong() {
    let (seeds, samples) = if all() { (60, 4) } else { (6, 1) };
    let (mut count, mut disks) = (0, 0);
    for seed in 0..seeds {
        let durability = [Durability::Lazy, Durability::Ack][seed as usize % 2];
        let faults = seed % 4 >= 2;
        let (disk, history) = storm(seed, durability, None, faults).await;
        let of_seed = cuts(&disk, &history, seed, samples).await;
        let of_seed = of_seed
            .map_err(|error| format!("seed {seed}: {error}"))
            .unwrap();
        (count, disks) = (count + of_seed.0, disks + of_seed.1);
    }
    println!("{count} cuts, {disks} different disks");
    assert!(count > 500, "only {count} cuts");
}

/// The same must fail when one flush is left out: else it would prove nothing.
async fn is_missed(flush: Flush) -> bool {
    for seed in 0..12 {
        let durability = [Durability::Lazy, Durability::Ack][seed as usize % 2];
        let (disk, history) = storm(seed, durability, Some(flush), false).await;
        if cuts(&disk, &history, seed, 1).await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn every_flush_is_missed() {
    for flush in [
        Flush::Records,
        Flush::SegmentName,
        Flush::Body,
        Flush::BodyName,
        Flush::Clean,
        Flush::Superblock,
    ] {
        assert!(is_missed(flush).await, "{flush:?} is of no use");
    }
}

#[tokio::test]
async fn what_was_copied_is_durable_before_its_segment_goes() {
    for skip in [None, Some(Flush::Survivors)] {
        let disk = SimDisk::new(64 << 20);
        let store = open(&disk).await;
        put(&store, "held", &pattern(1, 3000)).await.unwrap();
        put(&store, "held and large", &pattern(2, 30_000))
            .await
            .unwrap();
        for volume in store.volumes() {
            volume.sync(Flush::Records).unwrap();
        }
        assert!(store.hold(&key("held"), NOW + 600_000));
        assert!(store.hold(&key("held and large"), NOW + 600_000));
        let from = disk.now();
        disk.skip(skip);
        for volume in store.volumes() {
            assert!(volume.evict_one(false).unwrap());
        }
        assert_eq!(get(&store, "held").await.unwrap(), pattern(1, 3000));
        let mut lost = 0;
        for place in from..=disk.now() {
            for cut in [Cut::Flushed, Cut::All, Cut::Some(1), Cut::Some(2)] {
                let store = open(&disk.cut(place, cut)).await;
                lost += usize::from(get(&store, "held").await != Some(pattern(1, 3000)));
                lost +=
                    usize::from(get(&store, "held and large").await != Some(pattern(2, 30_000)));
            }
        }
        assert_eq!(lost > 0, skip.is_some());
    }
}

#[tokio::test]
async fn no_older_segment_comes_back_after_a_younger_one_went() {
    for skip in [None, Some(Flush::Gone)] {
        let disk = SimDisk::new(64 << 20);
        let clock = TestClock::at(NOW);
        let mut store = open_with(&disk, settings(), &clock).await;
        for value in 0..4 {
            let terms = Terms {
                existing: Existing::Replace,
                ..terms()
            };
            put_with(&store, &key("a"), &pattern(value, 1000), terms)
                .await
                .unwrap();
            // A start closes the segment.
            drop(store);
            store = open_with(&disk, settings(), &clock).await;
        }
        let from = disk.now();
        disk.skip(skip);
        for volume in store.volumes() {
            while volume.evict_one(true).unwrap() {}
        }
        assert_eq!(get(&store, "a").await, None);
        let mut stale = 0;
        for place in from..=disk.now() {
            for seed in 0..20 {
                let store = open(&disk.cut(place, Cut::Some(seed))).await;
                let shown = get(&store, "a").await;
                stale += usize::from(shown.is_some_and(|shown| shown != pattern(3, 1000)));
            }
        }
        assert_eq!(stale > 0, skip.is_some());
    }
}
