//! The verity writer against veritysetup, and its own check against flipped bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use formats::region::{Extents, Memory, ReadAt, Region, WriteAt};
use formats::verity::{self, Error, Parameters, RootHash};
use support::{noise, ok};
use uuid::Uuid;

const BLOCK: usize = 4096;

fn parameters(salt: usize) -> Parameters {
    Parameters {
        salt: noise(salt, 9).to_vec(),
        uuid: Uuid::from_u128(0xaaaa_bbbb_cccc_4ddd_8eee_ffff_0000_1111),
    }
}

/// `blocks` blocks, some of them zero.
fn data(blocks: usize) -> Vec<u8> {
    let mut data = noise(blocks * BLOCK, 5).to_vec();
    for (_, block) in data
        .chunks_mut(BLOCK)
        .enumerate()
        .filter(|(at, _)| at % 7 == 3)
    {
        block.fill(0);
    }
    data
}

#[test]
fn the_tree_is_that_of_veritysetup_bit_for_bit() {
    for (blocks, salt) in [
        (1, 32),
        (2, 32),
        (128, 0),
        (129, 64),
        (1000, 32),
        (16385, 32),
    ] {
        let parameters = parameters(salt);
        let data = data(blocks);
        let tree = verity::build(&data, blocks as u64, None, &parameters).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        std::fs::write(path("data"), &data).unwrap();
        let hex: String = parameters.salt.iter().map(|b| format!("{b:02x}")).collect();
        let output = ok(
            "veritysetup",
            &[
                "format",
                "--uuid",
                &parameters.uuid.to_string(),
                "--salt",
                if hex.is_empty() { "-" } else { &hex },
                &path("data"),
                &path("hash"),
            ],
        );
        assert!(
            output.contains(&tree.root_hash.to_string()),
            "{blocks}: {output}"
        );
        assert!(
            tree.bytes == std::fs::read(path("hash")).unwrap(),
            "{blocks}"
        );
        // And theirs accepts ours.
        std::fs::write(path("ours"), &tree.bytes).unwrap();
        ok(
            "veritysetup",
            &[
                "verify",
                &path("data"),
                &path("ours"),
                &tree.root_hash.to_string(),
            ],
        );
    }
}

#[test]
fn a_hint_of_what_was_written_changes_nothing() {
    let blocks = 3000;
    let mut data = vec![0; blocks * BLOCK];
    let mut written = Extents::new();
    for at in [0, 700, 701, 2999] {
        data[at * BLOCK + 5] = 1;
        written.add((at * BLOCK) as u64..((at + 1) * BLOCK) as u64);
    }
    let all = verity::build(&data, blocks as u64, None, &parameters(32)).unwrap();
    let some = verity::build(&data, blocks as u64, Some(&written), &parameters(32)).unwrap();
    assert_eq!(all, some);
}

#[test]
fn every_flipped_byte_is_found_and_the_first_bad_block_named() {
    let blocks = 1500;
    let data = data(blocks);
    let tree = verity::build(&data, blocks as u64, None, &parameters(32)).unwrap();
    let disk = Memory::new(0);
    disk.write_all_at(&data, 4096).unwrap();
    let region = Region::new(&disk, 4096, data.len() as u64);
    let seen = verity::verify(&region, &tree.bytes, &tree.root_hash).unwrap();
    assert_eq!(seen.data_blocks, blocks as u64);
    assert_eq!(seen.tree_bytes, tree.bytes.len() as u64);
    assert_eq!(seen.parameters, parameters(32));

    let flip = |at: u64| {
        let mut byte = [0];
        region.read_exact_at(&mut byte, at).unwrap();
        region.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    for first in [0, 3, 511, 512, 1024, 1499] {
        flip(first * 4096 + 77);
        flip(1499 * 4096 + 78);
        match verity::verify(&region, &tree.bytes, &tree.root_hash) {
            Err(Error::DataBlock { block, offset }) => {
                assert_eq!((block, offset), (first, first * 4096));
            }
            other => panic!("{first}: {other:?}"),
        }
        flip(first * 4096 + 77);
        flip(1499 * 4096 + 78);
    }

    let mut other = tree.bytes.clone();
    for at in (4096..tree.bytes.len()).step_by(997) {
        other[at] ^= 0x10;
        match verity::verify(&region, &other, &tree.root_hash) {
            Err(Error::HashBlock { block, .. }) => assert_eq!(block, at as u64 / 4096),
            result => panic!("{at}: {result:?}"),
        }
        other[at] = tree.bytes[at];
    }
    assert!(verity::verify(&region, &tree.bytes, &RootHash([1; 32])).is_err());
    assert!(verity::verify(&region, &tree.bytes[..8192], &tree.root_hash).is_err());
    assert!(verity::verify(&data[4096..], &tree.bytes, &tree.root_hash).is_err());
}
