//! Files of a real volume, changed a little, before the readers of segments, footers and checkpoints;
//! also with their checksums made right again, as nothing but an enemy or a bug would.
//!
//! The same every time, through the bodies of the targets in `fuzz/`.

use super::*;
use crate::disk::Flush;
use crate::disk::sim::{Dice, SimDisk};
use crate::format::segment::{Header, TRAILER, Trailer};
use crate::fuzz::repair;

/// A volume with a sealed segment, an open one and a checkpoint.
async fn made() -> SimDisk {
    let disk = SimDisk::new(16 << 20);
    let store = open(&disk).await;
    for number in 0..60 {
        let length = 97 * number as usize;
        let names = (number % 7 == 1).then(|| key(&format!("{}", number - 1)));
        let terms = Terms {
            names: names.into_iter().collect(),
            pinned: number % 5 == 0,
            note: vec![1; number as usize % 3],
            ..terms()
        };
        put_with(
            &store,
            &key(&format!("{number}")),
            &pattern(number, length),
            terms,
        )
        .await
        .unwrap();
    }
    assert!(store.remove(&key("7")).await.unwrap());
    for volume in store.volumes() {
        volume.sync(Flush::Records).unwrap();
        volume.checkpoint().unwrap();
    }
    disk
}

fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let length = bytes.len() as u64;
        if length == 0 {
            return;
        }
        let at = dice.below(length) as usize;
        let end = at + dice.below((length - at as u64).min(64) + 1) as usize;
        match dice.below(6) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5) as usize],
            2 => bytes[at..end].fill(dice.roll() as u8),
            3 => bytes.truncate(at.max(64)),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = dice.below(length) as usize;
                bytes.splice(to..to, piece);
            }
            _ => drop(bytes.drain(at..end)),
        }
    }
}

#[tokio::test]
async fn readers_take_what_was_changed() {
    let disk = made().await;
    let mut dice = Dice(7);
    let mut known = 0;
    for _ in 0..if all() { 200_000 } else { 10_000 } {
        let paths = disk.paths();
        let path = &paths[dice.below(paths.len() as u64) as usize];
        let mut bytes = Vec::new();
        disk.damage(path, |whole| bytes.clone_from(whole));
        change(&mut bytes, &mut dice);
        crate::fuzz::all(&bytes);
        for at in (0..bytes.len()).step_by(16) {
            if bytes[at..].starts_with(b"LREC") {
                crate::fuzz::record(&bytes[at..]);
            }
        }
        repair(&mut bytes);
        if let (Some(header), Some(at)) = (
            Header::parse(&bytes),
            bytes.len().checked_sub(TRAILER as usize),
        ) && let Some(trailer) = Trailer::parse(&bytes[at..], bytes.len() as u64, &header)
        {
            known += usize::from(
                trailer
                    .entries(&bytes[trailer.entries as usize..at])
                    .is_some(),
            );
        }
    }
    assert!(known > 10, "{known} footers were still good");
}

#[tokio::test]
async fn stores_open_on_what_was_changed() {
    let disk = made().await;
    let mut dice = Dice(11);
    let mut found = 0;
    for _ in 0..if all() { 2000 } else { 150 } {
        let changed = disk.killed();
        let paths = changed.paths();
        let path = &paths[dice.below(paths.len() as u64) as usize];
        let repaired = dice.below(2) == 0;
        changed.damage(path, |bytes| {
            change(bytes, &mut dice);
            if repaired {
                repair(bytes);
            }
        });
        changed.start_recording();
        let store = open(&changed).await;
        for number in 0..60 {
            // A key that was changed in its head, with the right checksum, is another object's.
            if let Some(bytes) = get(&store, &format!("{number}")).await {
                found += 1;
                let right = bytes == pattern(number, 97 * number as usize);
                assert!(right || repaired, "{path}: wrong bytes of {number}");
            }
        }
        put(&store, "new", b"bytes").await.unwrap();
        assert_eq!(get(&store, "new").await.unwrap(), b"bytes");
    }
    assert!(found > 0);
}
