//! What differs between two trees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use formats::ldcache;
use formats::tree::{Kind, Node, Tree};
use serde::Deserialize;

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// The installation has it, our root does not.
    Missing,
    /// Our root has it, the installation does not.
    Extra,
    /// File, folder, link, …
    Kind,
    /// The target of a symbolic link.
    Target,
    /// Permission bits.
    Mode,
    /// User or group, by name.
    Owner,
    /// Extended attributes, such as capabilities.
    Xattrs,
    /// The bytes of a file.
    Content,
}

/// A difference at a path; accounts have paths such as `/etc/passwd:root`.
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) what: What,
    detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.what, self.path, self.detail)
    }
}

/// Files that list accounts, one a line, which are compared account by account.
const ACCOUNTS: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"];

/// All differences, sorted by path. Times are not compared.
pub(crate) fn compare(theirs: &Tree, ours: &Tree) -> Vec<Difference> {
    let paths: BTreeSet<&str> = theirs
        .iter()
        .chain(ours.iter())
        .map(|(path, _)| path)
        .collect();
    let (their_names, our_names) = (Names::of(theirs), Names::of(ours));
    let mut found = Vec::new();
    for path in paths {
        let mut differ = |what, detail: String| {
            let path = path.to_string();
            found.push(Difference { path, what, detail });
        };
        let (their, our) = match (theirs.get(path), ours.get(path)) {
            (Some(their), Some(our)) => (behind(theirs, their), behind(ours, our)),
            (Some(their), None) => {
                differ(What::Missing, kind(&their.kind).into());
                continue;
            }
            (None, Some(our)) => {
                differ(
                    What::Extra,
                    format!("{} of {}", kind(&our.kind), our.origin),
                );
                continue;
            }
            (None, None) => continue,
        };
        if kind(&their.kind) != kind(&our.kind) {
            differ(
                What::Kind,
                format!("{} there, {} here", kind(&their.kind), kind(&our.kind)),
            );
            continue;
        }
        match (&their.kind, &our.kind) {
            (Kind::Symlink(there), Kind::Symlink(here)) if there != here => {
                differ(
                    What::Target,
                    format!("{there} there, {here} here ({})", our.origin),
                );
            }
            (Kind::File(there), Kind::File(here))
                if !ACCOUNTS.contains(&path) && !same(path, there, here, ours) =>
            {
                differ(What::Content, format!("({})", our.origin));
            }
            _ => {}
        }
        // A link's mode and owner mean nothing.
        if !matches!(their.kind, Kind::Symlink(_)) {
            if their.mode != our.mode {
                differ(
                    What::Mode,
                    format!("{:04o} there, {:04o} here", their.mode, our.mode),
                );
            }
            let (there, here) = (their_names.owner(their), our_names.owner(our));
            if there != here {
                differ(What::Owner, format!("{there} there, {here} here"));
            }
        }
        if their.xattrs != our.xattrs {
            differ(
                What::Xattrs,
                format!("{:?} there, {:?} here", their.xattrs, our.xattrs),
            );
        }
    }
    for file in ACCOUNTS {
        accounts(file, theirs, ours, &mut found);
    }
    found
}

/// Whether two files say the same. A cache of the loader is compared by its entries (ldconfig orders
/// the strings otherwise and adds its own name), those of libraries that we have.
fn same(path: &str, there: &[u8], here: &[u8], ours: &Tree) -> bool {
    if path == "/etc/ld.so.cache" {
        let mut there = ldcache::parse(there).unwrap();
        there.retain(|library| ours.resolve(&library.path).is_some());
        return there == ldcache::parse(here).unwrap();
    }
    there == here
}

/// The file that a hard link is another name of.
fn behind<'t>(tree: &'t Tree, node: &'t Node) -> &'t Node {
    match &node.kind {
        Kind::Hardlink(to) => tree.get(to).unwrap_or(node),
        _ => node,
    }
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Dir => "folder",
        Kind::File(_) | Kind::Hardlink(_) => "file",
        Kind::Symlink(_) => "link",
        Kind::CharDevice(..) | Kind::BlockDevice(..) => "device",
        Kind::Fifo => "pipe",
    }
}

/// Accounts of a file without their ids (those of dpkg's installation depend on its order, ours
/// are fixed) and without the day of the last change of the password.
fn accounts(file: &str, theirs: &Tree, ours: &Tree, found: &mut Vec<Difference>) {
    let read = |tree: &Tree| -> BTreeMap<String, String> {
        text(tree, file)
            .lines()
            .filter_map(|line| {
                let mut fields: Vec<&str> = line.split(':').collect();
                match (file, fields.len()) {
                    ("/etc/passwd", 7) => fields.drain(2..4).for_each(drop),
                    ("/etc/group", 4) => fields.drain(2..3).for_each(drop),
                    ("/etc/shadow", 9) => fields.drain(2..3).for_each(drop),
                    _ => {}
                }
                Some((fields.first()?.to_string(), fields.join(":")))
            })
            .collect()
    };
    let (there, here) = (read(theirs), read(ours));
    let names: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    for name in names {
        let (what, detail) = match (there.get(name), here.get(name)) {
            (Some(line), None) => (What::Missing, line.clone()),
            (None, Some(line)) => (What::Extra, line.clone()),
            (Some(there), Some(here)) if there != here => {
                (What::Content, format!("{there} there, {here} here"))
            }
            _ => continue,
        };
        let path = format!("{file}:{name}");
        found.push(Difference { path, what, detail });
    }
}

fn text(tree: &Tree, path: &str) -> String {
    let content = tree.get(path).and_then(Node::content);
    String::from_utf8_lossy(content.map_or(&[][..], |bytes| bytes)).into_owned()
}

/// Names of users and groups by id.
struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    fn of(tree: &Tree) -> Self {
        let read = |file| {
            text(tree, file)
                .lines()
                .filter_map(|line| {
                    let mut fields = line.split(':');
                    let name = fields.next()?.to_string();
                    Some((fields.nth(1)?.parse().ok()?, name))
                })
                .collect()
        };
        Self {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
        }
    }

    fn owner(&self, node: &Node) -> String {
        let name = |names: &BTreeMap<u32, String>, id: u32| match names.get(&id) {
            Some(name) => name.clone(),
            None => id.to_string(),
        };
        format!(
            "{}:{}",
            name(&self.users, node.uid),
            name(&self.groups, node.gid)
        )
    }
}
