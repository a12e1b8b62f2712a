//! The `.bin` index files of libkmod: a radix tree from keys to values with priorities.
//!
//! All integers are big-endian. Header: magic, version, offset of the root node. A node, at the low
//! 28 bits of an offset, has up to three parts that flags in the high bits announce: a prefix (ended
//! by NUL), the children (first and last character, then an offset for each character between), the
//! values (count, then priority and text ended by NUL). Nodes are written parent first, as kmod 34
//! does; readers don't care.

use std::collections::BTreeMap;

use super::DepmodError;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0fff_ffff;
/// Deeper trees than this are not read: keys are at most a path long.
const MAX_DEPTH: usize = 4096;

/// Key → values by priority. Equal priorities: the last one first, as depmod has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>>,
}

/// A node of the radix tree over the sorted keys from `keys[start]`.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) prefix: &'a [u8],
    pub(super) values: &'a [(u32, Vec<u8>)],
    pub(super) children: Vec<(u8, Node<'a>)>,
}

impl Index {
    /// Adds a value.
    ///
    /// # Errors
    /// [`DepmodError::NotAscii`]: the format has no other characters.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        value: &[u8],
        priority: u32,
    ) -> Result<(), DepmodError> {
        if let Some(text) = [key, value].into_iter().find(|text| !text.is_ascii()) {
            return Err(DepmodError::NotAscii(
                String::from_utf8_lossy(text).into_owned(),
            ));
        }
        let values = self.keys.entry(key.to_vec()).or_default();
        let place = values.partition_point(|(other, _)| *other < priority);
        values.insert(place, (priority, value.to_vec()));
        Ok(())
    }

    /// The tree; the root has no prefix, whatever the keys have in common.
    pub(super) fn tree(&self) -> Node<'_> {
        type Entry<'k> = (&'k [u8], &'k [(u32, Vec<u8>)]);
        fn build<'k>(entries: &[Entry<'k>], depth: usize, root: bool) -> Node<'k> {
            let Some((first, values)) = entries.first() else {
                return Node::default();
            };
            let last = entries[entries.len() - 1].0;
            let common = match root {
                true => depth,
                false => {
                    let same = first[depth..].iter().zip(&last[depth..]);
                    depth + same.take_while(|(a, b)| a == b).count()
                }
            };
            let mut node = Node {
                prefix: &first[depth..common],
                ..Node::default()
            };
            let mut rest = entries;
            if first.len() == common {
                node.values = values;
                rest = &entries[1..];
            }
            while let Some((key, _)) = rest.first() {
                let character = key[common];
                let count = rest.partition_point(|(key, _)| key[common] == character);
                node.children
                    .push((character, build(&rest[..count], common + 1, false)));
                rest = &rest[count..];
            }
            node
        }
        let entries: Vec<Entry<'_>> = self
            .keys
            .iter()
            .map(|(key, values)| (key.as_slice(), values.as_slice()))
            .collect();
        build(&entries, 0, true)
    }

    /// The file.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [MAGIC, VERSION, 0] {
            out.extend(word.to_be_bytes());
        }
        let root = write_node(&self.tree(), &mut out);
        out[8..12].copy_from_slice(&root.to_be_bytes());
        out
    }

    /// Reads a file back: all keys with their values in the file's order.
    ///
    /// # Errors
    /// [`DepmodError::BadIndex`].
    #[cfg(test)]
    pub(super) fn read(file: &[u8]) -> Result<Self, DepmodError> {
        let mut keys = BTreeMap::new();
        read(file, &mut |key, values| {
            keys.insert(key.to_vec(), values);
        })?;
        Ok(Self { keys })
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> &BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>> {
        &self.keys
    }
}

/// Node, then its children; the offset with its flags. An empty tree is a root with nothing in it.
fn write_node(node: &Node<'_>, out: &mut Vec<u8>) -> u32 {
    let mut offset = out.len() as u32;
    if !node.prefix.is_empty() {
        out.extend_from_slice(node.prefix);
        out.push(0);
        offset |= PREFIX;
    }
    let mut table = 0;
    if let (Some((first, _)), Some((last, _))) = (node.children.first(), node.children.last()) {
        out.extend([*first, *last]);
        table = out.len();
        out.resize(table + 4 * (usize::from(last - first) + 1), 0);
        offset |= CHILDREN;
    }
    write_values(node, out, &mut offset);
    for (character, child) in &node.children {
        let place = table + 4 * usize::from(character - node.children[0].0);
        let child = write_node(child, out);
        out[place..place + 4].copy_from_slice(&child.to_be_bytes());
    }
    offset
}

pub(super) fn write_values(node: &Node<'_>, out: &mut Vec<u8>, offset: &mut u32) {
    if node.values.is_empty() {
        return;
    }
    out.extend((node.values.len() as u32).to_be_bytes());
    for (priority, value) in node.values {
        out.extend(priority.to_be_bytes());
        out.extend_from_slice(value);
        out.push(0);
    }
    *offset |= VALUES;
}

type Values = Vec<(u32, Vec<u8>)>;

/// Walks an index file; `each` gets key and values.
///
/// # Errors
/// [`DepmodError::BadIndex`].
pub(super) fn read(file: &[u8], each: &mut dyn FnMut(&[u8], Values)) -> Result<(), DepmodError> {
    if word(file, 0)? != MAGIC || word(file, 4)? >> 16 != VERSION >> 16 {
        return Err(DepmodError::BadIndex {
            offset: 0,
            what: "the magic number or version is another",
        });
    }
    // A tree has no more nodes than bytes; a file whose offsets make loops would.
    let mut budget = file.len();
    walk(file, word(file, 8)?, &mut Vec::new(), 0, &mut budget, each)
}

fn walk(
    file: &[u8],
    node: u32,
    key: &mut Vec<u8>,
    depth: usize,
    budget: &mut usize,
    each: &mut dyn FnMut(&[u8], Values),
) -> Result<(), DepmodError> {
    let mut at = (node & OFFSET) as usize;
    let bad = |at: usize, what| DepmodError::BadIndex {
        offset: at as u64,
        what,
    };
    *budget = budget
        .checked_sub(1)
        .filter(|_| depth < MAX_DEPTH)
        .ok_or_else(|| bad(at, "the tree has loops"))?;
    let length = key.len();
    if node & PREFIX != 0 {
        let prefix = text(file, at)?;
        key.extend_from_slice(prefix);
        at += prefix.len() + 1;
    }
    let mut children = (0, 0, 0);
    if node & CHILDREN != 0 {
        let ends = file
            .get(at..at + 2)
            .ok_or_else(|| bad(at, "it is cut off"))?;
        if ends[0] > ends[1] {
            return Err(bad(at, "a node's children end before they begin"));
        }
        children = (ends[0], ends[1], at + 2);
        at += 2 + 4 * (usize::from(ends[1] - ends[0]) + 1);
    }
    if node & VALUES != 0 {
        let count = word(file, at)?;
        at += 4;
        let mut values = Vec::new();
        for _ in 0..count {
            let value = text(file, at + 4)?;
            values.push((word(file, at)?, value.to_vec()));
            at += 4 + value.len() + 1;
        }
        each(key, values);
    }
    if node & CHILDREN != 0 {
        for (index, character) in (children.0..=children.1).enumerate() {
            let child = word(file, children.2 + 4 * index)?;
            if child != 0 {
                key.push(character);
                walk(file, child, key, depth + 1, budget, each)?;
                key.pop();
            }
        }
    }
    key.truncate(length);
    Ok(())
}

fn word(file: &[u8], at: usize) -> Result<u32, DepmodError> {
    file.get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or(DepmodError::BadIndex {
            offset: at as u64,
            what: "it is cut off",
        })
}

fn text(file: &[u8], at: usize) -> Result<&[u8], DepmodError> {
    file.get(at..)
        .and_then(|tail| crate::elf::string(tail, 0))
        .ok_or(DepmodError::BadIndex {
            offset: at as u64,
            what: "a text without an end",
        })
}
