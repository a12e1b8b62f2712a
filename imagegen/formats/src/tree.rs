//! A file tree in memory: what a file system writer is fed with, and what a reader gives back.
//!
//! Paths are absolute, normalised (`/usr/bin/env`; the root is `/`) and sorted by their bytes, so
//! that whoever walks a tree meets a folder before what lies in it and always in the same order.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file and its content.
    File(Bytes),
    /// A symbolic link and its target, as written.
    Symlink(String),
    /// Another name of the regular file at this (absolute, normalised) path of the same tree.
    Hardlink(String),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One file of a tree with everything that a file system keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (`0o7777` mask); never the type bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970. Writers clamp it to their clock.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Where it came from: `package openssh-server`, `effect base-passwd`, `configs/root`, …
    pub origin: String,
}

impl Node {
    /// A node of root's without extended attributes, time 0.
    pub fn new(kind: Kind, mode: u16, origin: impl Into<String>) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
            origin: origin.into(),
        }
    }

    /// The content, if it is a regular file.
    pub fn content(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }
}

/// Why a tree refuses a path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// Not absolute, or with `.`, `..`, empty components, a NUL, or a component over 255 bytes.
    #[error("path {0:?} is not an absolute, normalised path")]
    BadPath(String),
    /// Two sources give different things at one path.
    #[error("{path} comes from {first} and again, different, from {second}")]
    Clash {
        /// The path.
        path: String,
        /// Who was first.
        first: String,
        /// Who came second.
        second: String,
    },
    /// The parent is missing or not a folder.
    #[error("{0} has no folder to lie in")]
    NoParent(String),
}

/// Files by path. See the module's documentation for the order and form of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// An empty tree; not even `/` is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a node at `path`, replacing what is there.
    ///
    /// # Errors
    /// [`TreeError::BadPath`].
    pub fn insert(&mut self, path: impl Into<String>, node: Node) -> Result<(), TreeError> {
        let path = path.into();
        if !is_normal(&path) {
            return Err(TreeError::BadPath(path));
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Puts a node at `path`; two folders at one path are one, anything else twice is a clash.
    ///
    /// # Errors
    /// [`TreeError::BadPath`], [`TreeError::Clash`].
    pub fn add(&mut self, path: impl Into<String>, node: Node) -> Result<(), TreeError> {
        let path = path.into();
        if let Some(old) = self.nodes.get(&path) {
            if old.kind == Kind::Dir && node.kind == Kind::Dir {
                return Ok(());
            }
            return Err(TreeError::Clash {
                path,
                first: old.origin.clone(),
                second: node.origin,
            });
        }
        self.insert(path, node)
    }

    /// The node at `path`.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at `path`, to be changed in place.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Takes `path` out, and if it is a folder all below it; how many nodes went.
    pub fn remove(&mut self, path: &str) -> usize {
        let before = self.nodes.len();
        if matches!(
            self.nodes.remove(path),
            Some(Node {
                kind: Kind::Dir,
                ..
            })
        ) {
            let below = format!("{}/", path.trim_end_matches('/'));
            self.nodes.retain(|p, _| !p.starts_with(&below));
        }
        before - self.nodes.len()
    }

    /// Keeps the nodes that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Node) -> bool) {
        self.nodes.retain(|path, node| keep(path, node));
    }

    /// Path and node, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Path and node of `folder` itself and all below it, sorted by path.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        self.nodes
            .range(folder.to_string()..)
            .take_while(move |(path, _)| path.starts_with(folder))
            .filter(move |(path, _)| *path == folder || path.starts_with(&prefix))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// How many nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Follows symbolic links in all components of `path` (at most 40) inside the tree.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut links = 0;
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_string).collect();
        let mut done: Vec<String> = Vec::new();
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = format!("/{}", done.join("/"));
            if let Some(Node {
                kind: Kind::Symlink(target),
                ..
            }) = self.nodes.get(&here)
            {
                links += 1;
                if links > 40 {
                    return None;
                }
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                todo.extend(target.split('/').rev().map(str::to_string));
            }
        }
        let found = format!("/{}", done.join("/"));
        self.nodes.contains_key(&found).then_some(found)
    }

    /// Checks that every node lies in a folder and every hard link leads to a regular file.
    ///
    /// # Errors
    /// [`TreeError::NoParent`], [`TreeError::BadPath`] for a hard link to nothing.
    pub fn check(&self) -> Result<(), TreeError> {
        for (path, node) in &self.nodes {
            if path != "/" {
                let parent = match path.rfind('/') {
                    Some(0) | None => "/",
                    Some(at) => &path[..at],
                };
                if !matches!(
                    self.nodes.get(parent),
                    Some(Node {
                        kind: Kind::Dir,
                        ..
                    })
                ) {
                    return Err(TreeError::NoParent(path.clone()));
                }
            }
            if let Kind::Hardlink(target) = &node.kind
                && !matches!(
                    self.nodes.get(target),
                    Some(Node {
                        kind: Kind::File(_),
                        ..
                    })
                )
            {
                return Err(TreeError::BadPath(target.clone()));
            }
        }
        Ok(())
    }
}

/// Whether `path` is absolute and normalised (see the module).
fn is_normal(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    rest.split('/')
        .all(|c| !c.is_empty() && c != "." && c != ".." && c.len() <= 255 && !c.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> Node {
        Node::new(Kind::Dir, 0o755, "test")
    }
    fn file(text: &'static str) -> Node {
        Node::new(Kind::File(Bytes::from_static(text.as_bytes())), 0o644, text)
    }
    fn link(to: &str) -> Node {
        Node::new(Kind::Symlink(to.into()), 0o777, "test")
    }

    #[test]
    fn a_clash_names_both_sources() {
        let mut tree = Tree::new();
        tree.add("/a", file("one")).unwrap();
        let err = tree.add("/a", file("two")).unwrap_err();
        assert_eq!(
            err.to_string(),
            "/a comes from one and again, different, from two"
        );
        tree.add("/d", dir()).unwrap();
        tree.add("/d", dir()).unwrap();
    }

    #[test]
    fn bad_paths_are_refused() {
        for bad in ["", "a", "/a/", "/a//b", "/./a", "/a/..", "/a\0"] {
            assert!(Tree::new().insert(bad, dir()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn removing_a_folder_takes_what_is_below_and_nothing_beside() {
        let mut tree = Tree::new();
        for path in ["/", "/a", "/a/b", "/a-c"] {
            tree.insert(path, dir()).unwrap();
        }
        assert_eq!(tree.remove("/a"), 2);
        assert!(tree.get("/a-c").is_some());
        assert_eq!(tree.below("/a").count(), 0);
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let mut tree = Tree::new();
        tree.insert("/usr", dir()).unwrap();
        tree.insert("/usr/bin", dir()).unwrap();
        tree.insert("/usr/bin/sh", link("dash")).unwrap();
        tree.insert("/usr/bin/dash", file("x")).unwrap();
        tree.insert("/bin", link("usr/bin")).unwrap();
        tree.insert("/loop", link("/loop")).unwrap();
        assert_eq!(tree.resolve("/bin/sh").as_deref(), Some("/usr/bin/dash"));
        assert_eq!(
            tree.resolve("/bin/../../usr/bin/sh").as_deref(),
            Some("/usr/bin/dash")
        );
        assert_eq!(tree.resolve("/loop"), None);
        assert_eq!(tree.resolve("/bin/none"), None);
    }

    #[test]
    fn orphans_and_dangling_hard_links_are_found() {
        let mut tree = Tree::new();
        tree.insert("/", dir()).unwrap();
        tree.insert("/a/b", dir()).unwrap();
        assert_eq!(tree.check(), Err(TreeError::NoParent("/a/b".into())));
        tree.insert("/a", dir()).unwrap();
        tree.insert("/l", Node::new(Kind::Hardlink("/none".into()), 0o644, "t"))
            .unwrap();
        assert!(tree.check().is_err());
    }
}
