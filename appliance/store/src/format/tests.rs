//! Properties of the format: what is written is read, what is bent is refused.

use proptest::prelude::*;

use super::cleans::Clean;
use super::record::{DIGEST, Frame, Head, Kind, LARGE, NAMES, Parsed, Writer};
use super::segment::{Entry, Header, TRAILER, Trailer, footer};
use super::superblock::{Members, Missing, Superblock};
use super::*;
use crate::key::{Key, Parts};

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["", "[a-z]{1,12}", "\\PC{0,40}"]
}

fn head() -> impl Strategy<Value = (Head, Vec<u8>)> {
    let body = prop_oneof![0..300_usize, BLOCK - 2..BLOCK + 2, 2 * BLOCK..2 * BLOCK + 9];
    let parts = prop::array::uniform8(text());
    let numbers = any::<(u64, u64, u64, u8)>();
    let names = prop::collection::vec(any::<u64>(), 0..9);
    (
        body,
        parts,
        numbers,
        any::<Option<[u8; 32]>>(),
        names,
        prop::collection::vec(any::<u8>(), 0..60),
    )
        .prop_map(
            |(length, parts, (tag, time, file, small), sha256, names, note)| {
                let large = small & 1 != 0;
                let body: Vec<u8> = (0..length)
                    .map(|at| (at as u8).wrapping_mul(small))
                    .collect();
                let each: Vec<&str> = parts[..6].iter().map(String::as_str).collect();
                let mut flags = small & 7;
                flags |= if sha256.is_some() { DIGEST } else { 0 };
                flags |= if names.is_empty() { 0 } else { NAMES };
                flags |= if large { LARGE } else { 0 };
                let head = Head {
                    kind: Kind::Object,
                    flags,
                    tag,
                    length: length as u64,
                    time,
                    content: [small; 16],
                    generation: time ^ tag,
                    file: if large { file | 1 } else { 0 },
                    key: Parts::new(&each).unwrap(),
                    writer: Writer {
                        fingerprint: [small; 8],
                        subject: parts[6].clone(),
                        request: parts[7].clone(),
                    },
                    note,
                    sha256,
                    names,
                    blocks: record::block_table(&body),
                };
                (head, if large { Vec::new() } else { body })
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_frame_says_what_the_head_says((mut head, body) in head(), generation: u64, bend: prop::sample::Index) {
        let [_, account, project, category, hash, name] = head.key.each().map(str::to_owned);
        let key = Key { kind: crate::Kind::Module, account, project, category, hash, name };
        head.key = key.parts();
        let mut bytes = Vec::new();
        head.write(generation, &mut bytes);
        bytes.extend_from_slice(&body);
        let (end, start) = (bytes.len(), 0);
        record::pad(&mut bytes, start);
        let of = |bytes: &[u8], key: &Key| {
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            Frame::of(bytes, generation, key, head.tag, head.generation)
        };
        let frame = of(&bytes, &key);
        let simple = head.flags & (NAMES | LARGE) == 0;
        prop_assert_eq!(frame.is_some(), simple);
        if let Some(frame) = frame {
            prop_assert_eq!(frame.length(), head.length);
            prop_assert_eq!(frame.time(), head.time);
            prop_assert_eq!(frame.content(), head.content);
            prop_assert_eq!(frame.note(), head.note);
            prop_assert_eq!(frame.sha256(), head.sha256);
            prop_assert_eq!(frame.writer(), head.writer);
            prop_assert_eq!(frame.body(), body);
        }
        let other = Key { hash: format!("{}x", key.hash), ..key.clone() };
        prop_assert!(of(&bytes, &other).is_none());
        prop_assert!(of(&bytes[..end - 1], &key).is_none());
        bytes[bend.index(end)] ^= 8;
        prop_assert!(of(&bytes, &key).is_none());
    }

    #[test]
    fn records_round_trip_and_bent_ones_are_refused(
        (head, body) in head(),
        generation: u64,
        bend: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let mut bytes = Vec::new();
        head.write(generation, &mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(&body);
        record::pad(&mut bytes, 0);
        let (read, size) = record::whole(&bytes, generation).unwrap();
        prop_assert_eq!(&*read, &head);
        prop_assert_eq!(size, bytes.len() as u64);
        prop_assert!(record::whole(&bytes, generation ^ 1).is_none());
        for short in [0, 1, record::FIXED, length - 1] {
            let parsed = Head::parse(&bytes[..short], generation);
            prop_assert!(!matches!(parsed, Parsed::Head(..)));
        }
        // Every bit of head and body counts; the padding does not.
        let at = bend.index(length + body.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(record::whole(&bytes, generation).is_none(), "byte {}", at);
        crate::fuzz::all(&bytes);
    }

    #[test]
    fn footers_round_trip_and_bent_ones_are_refused(
        sizes in prop::collection::vec((1..5000_u32, any::<(u64, u64, u32)>()), 0..50),
        id: u32,
        generation: u64,
        bend: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let header = Header { id, generation, time: 7, size: 1 << 20 };
        let mut offset = 4;
        let entries: Vec<Entry> = sizes.iter().map(|(size, (tag, file, pages))| {
            let entry = Entry { tag: *tag, offset, size: *size, kind: Kind::Removal, flags: 3, pages: *pages, file: *file };
            offset += size;
            entry
        }).collect();
        let end = u64::from(offset) * ALIGN;
        let (at, mut bytes) = footer(&header, &entries, end, 9);
        let length = at + bytes.len() as u64;
        let read = |bytes: &[u8]| {
            let trailer = Trailer::parse(&bytes[bytes.len() - TRAILER as usize..], length, &header)?;
            trailer.entries(&bytes[..bytes.len() - TRAILER as usize]).map(|entries| (trailer.end, trailer.time, entries))
        };
        prop_assert_eq!(read(&bytes), Some((end, 9, entries)));
        let bent = bend.index(bytes.len());
        bytes[bent] ^= 1 << bit;
        prop_assert_eq!(read(&bytes), None);
        let segment = header.to_bytes();
        prop_assert_eq!(Header::parse(&segment), Some(header));
        let mut bent_segment = segment.clone();
        bent_segment[bend.index(64)] ^= 1 << bit;
        prop_assert_eq!(Header::parse(&bent_segment), None);
    }

    #[test]
    fn one_bent_copy_of_the_superblock_is_enough(
        epoch: u64,
        names in prop::collection::vec("[a-z/]{1,20}", 1..5),
        bend in 0..super::superblock::LENGTH,
        half in 0..2_usize,
    ) {
        let superblock = Superblock { uuid: [5; 16], epoch, time: 3, members: vec![Members { from: 1, names }] };
        let mut bytes = superblock.to_bytes().unwrap();
        bytes[bend + half * 4096] ^= 4;
        prop_assert_eq!(Superblock::parse(&bytes), Ok(superblock));
        bytes[(bend + 7) % 4096 + (1 - half) * 4096] ^= 4;
        prop_assert_eq!(Superblock::parse(&bytes), Err(Missing::Damaged));
    }

    #[test]
    fn cleans_are_skipped_one_by_one(count in 1..9_usize, bent in 0..9_usize, at in 0..64_usize) {
        let clean = |number: usize| Clean { project: [number as u8; 32], generation: number as u64, time: 1 };
        let mut bytes: Vec<u8> = (0..count).flat_map(|number| clean(number).to_bytes()).collect();
        if let Some(byte) = bytes.get_mut(bent * 64 + at) {
            *byte ^= 32;
        }
        let expected: Vec<Clean> = (0..count).filter(|number| *number != bent).map(clean).collect();
        prop_assert_eq!(cleans::parse(&bytes).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn noise_panics_nobody(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        crate::fuzz::all(&bytes);
        prop_assert!(record::whole(&bytes, 0).is_none());
    }
}
