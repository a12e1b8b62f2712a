//! What the tests against reference tools share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::Path;
use std::process::{Command, Output};

use bytes::Bytes;
use formats::tree::{Kind, Node, Tree};

/// Runs a reference tool. One that is missing fails the test: `make test` installs them.
pub fn tool(name: &str, args: &[&str]) -> Output {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed; `make test` would install it"));
    Command::new(found)
        .args(args)
        .env("LC_ALL", "C")
        .env("MTOOLS_SKIP_CHECK", "1")
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Runs a reference tool that must be content; gives back what it printed.
pub fn ok(name: &str, args: &[&str]) -> String {
    let output = tool(name, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{name} {args:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A node without a history.
pub fn node(kind: Kind, mode: u16) -> Node {
    Node::new(kind, mode, "test")
}

/// A tree with `/` and the folders that `paths` lie in.
pub fn tree(nodes: Vec<(String, Node)>) -> Tree {
    let mut tree = Tree::new();
    tree.insert("/", node(Kind::Dir, 0o755)).unwrap();
    for (path, node_) in nodes {
        let mut at = 0;
        while let Some(next) = path[at + 1..].find('/') {
            at += 1 + next;
            if tree.get(&path[..at]).is_none() {
                tree.insert(&path[..at], node(Kind::Dir, 0o755)).unwrap();
            }
        }
        tree.insert(path, node_).unwrap();
    }
    tree
}

/// Bytes that differ from block to block, none of them zero.
pub fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 | 1
        })
        .collect()
}

/// A regular file.
pub fn file(data: impl Into<Bytes>) -> Node {
    node(Kind::File(data.into()), 0o644)
}
