//! The lock's packages, installed by dpkg with all their maintainer scripts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use formats::tree::{Kind, Node, Tree};
use imagegen::rootfs::Locked;
use packages::{Refresh, Request};

use crate::root;

/// An installation.
pub(crate) struct Installation {
    pub(crate) tree: Tree,
    /// Paths that only packages have which `image.toml` excludes, or what those need.
    pub(crate) needless: BTreeSet<String>,
}

/// Installs the system packages of the lock, and those that their maintainer scripts need.
pub(crate) fn install() -> Installation {
    let (config, lock) = (root::config(), root::lock());
    let table = serde_json::to_value(&config.image.packages).unwrap();
    let mut request: Request = serde_json::from_value(table).unwrap();
    request.exclude.clear();
    request.kernels.clear();
    let all = root::fetcher()
        .update(&lock, Refresh::Nothing, &request)
        .unwrap_or_else(|e| panic!("{e}"));
    let locked: BTreeSet<(&str, &str)> = lock
        .system()
        .map(|package| (package.name.as_str(), package.version.as_str()))
        .collect();
    let extra: BTreeSet<&str> = all
        .system()
        .filter(|p| !locked.contains(&(p.name.as_str(), p.version.as_str())))
        .map(|package| package.name.as_str())
        .collect();
    let same = all.system().count() - extra.len();
    assert_eq!(
        same,
        locked.len(),
        "the archive has other versions than the lock"
    );

    let dir = tempfile::tempdir().unwrap();
    // Without root's rights apt is another user, who has to get at the packages.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let files = root::fetch(&all.system().collect::<Vec<_>>());
    let names = repository(dir.path(), &files);
    let tar = dir.path().join("root.tar");
    mmdebstrap(dir.path(), &names, &tar, lock.date);
    let tree = read(&tar);
    let needless = needless(&tree, &extra);
    Installation { tree, needless }
}

/// An archive of these packages for apt; their names.
fn repository(dir: &Path, files: &[Locked]) -> String {
    let mut index = String::new();
    for (package, path) in files {
        let file = format!("{}_{}.deb", package.name, package.arch);
        fs::copy(path, dir.join(&file)).unwrap();
        let control = formats::deb::control(&fs::read(path).unwrap()).unwrap();
        let control = std::str::from_utf8(&control["control"]).unwrap().trim_end();
        let (size, sha256) = (package.size, package.sha256);
        let _ = writeln!(
            index,
            "{control}\nFilename: ./{file}\nSize: {size}\nSHA256: {sha256}\n"
        );
    }
    fs::write(dir.join("Packages"), index).unwrap();
    let names: Vec<&str> = files
        .iter()
        .map(|(package, _)| package.name.as_str())
        .collect();
    names.join(",")
}

fn mmdebstrap(dir: &Path, names: &str, tar: &Path, clock: u64) {
    let mode = match rustix::process::geteuid().is_root() {
        true => "root",
        false => "unshare",
    };
    let output = Command::new("mmdebstrap")
        .args(["--variant=custom", "--architectures=amd64", "--format=tar"])
        .arg(format!("--mode={mode}"))
        .arg(format!("--include={names}"))
        .arg("trixie")
        .arg(tar)
        .arg(format!("deb [trusted=yes] copy://{} ./", dir.display()))
        .env("SOURCE_DATE_EPOCH", clock.to_string())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|e| panic!("mmdebstrap (apt-get install mmdebstrap): {e}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mmdebstrap --mode={mode}:\n{log}");
}

/// The tar file as a tree.
fn read(path: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut xattrs = std::collections::BTreeMap::new();
        if let Some(records) = entry.pax_extensions().unwrap() {
            for record in records {
                let record = record.unwrap();
                if let Some(name) = record.key().unwrap().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_string(), record.value_bytes().to_vec());
                }
            }
        }
        let absolute = |path: &Path| {
            let path = path.to_str().unwrap().trim_start_matches('.');
            format!("/{}", path.trim_matches('/'))
        };
        let link = entry.link_name().unwrap().map(|link| link.into_owned());
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Symlink => Kind::Symlink(link.unwrap().to_str().unwrap().into()),
            tar::EntryType::Link => Kind::Hardlink(absolute(&link.unwrap())),
            tar::EntryType::Char => {
                let device = |n: std::io::Result<Option<u32>>| n.unwrap().unwrap_or(0);
                Kind::CharDevice(device(header.device_major()), device(header.device_minor()))
            }
            tar::EntryType::Fifo => Kind::Fifo,
            _ => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data).unwrap();
                Kind::File(data.into())
            }
        };
        let mut node = Node::new(kind, (header.mode().unwrap() & 0o7777) as u16, "dpkg");
        node.uid = u32::try_from(header.uid().unwrap()).unwrap();
        node.gid = u32::try_from(header.gid().unwrap()).unwrap();
        node.xattrs = xattrs;
        tree.insert(absolute(&entry.path().unwrap()), node).unwrap();
    }
    tree
}

/// What only the extra packages have, by dpkg's lists of files.
fn needless(tree: &Tree, extra: &BTreeSet<&str>) -> BTreeSet<String> {
    let (mut theirs, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (path, node) in tree.below("/var/lib/dpkg/info") {
        let Some(file) = path.strip_prefix("/var/lib/dpkg/info/") else {
            continue;
        };
        let (Some(name), Some(content)) = (file.strip_suffix(".list"), node.content()) else {
            continue;
        };
        let name = name.split(':').next().unwrap_or(name);
        let list = String::from_utf8_lossy(content);
        let list = list.lines().map(str::to_string);
        if extra.contains(name) {
            theirs.extend(list);
        } else {
            others.extend(list);
        }
    }
    assert!(
        !theirs.is_empty() && !others.is_empty(),
        "dpkg's lists were not found"
    );
    theirs.difference(&others).cloned().collect()
}
